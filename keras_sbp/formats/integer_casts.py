"""Casts from integers in files that compute in integers: no cast is needed, only a scale of 1.

The converter leaves a cast to float32, behind it a quantisation, and refuses the rest of the work:
for LiteRT an integer is not a quantised number. But an integer tensor with the scale 1 and the zero
point 0 stands for just these integers, and from one quantised tensor to another there are kernels.
"""

from __future__ import annotations

import os
from collections import defaultdict
from typing import Any

from keras_sbp.formats.packages import require

# What QUANTIZE reads, for each type that it writes. The others are cast to that type before; it
# holds all their values.
_READ = {"INT8": ("INT8", "UINT8", "INT16", "INT32"), "INT16": ("INT16", "INT32")}
_CAST = {"INT8": ("BOOL",), "INT16": ("BOOL", "INT8", "UINT8")}


def fold_integer_casts(path: str | os.PathLike[str]) -> None:
    """Rewrite a full-integer `.tflite` file without the casts from integers to float32.

    Those are rewritten whose numbers are quantised at once, or with others in a concatenation. A
    file without such casts is left as it is.

    Args:
        path: The `.tflite` file.
    """
    utils = require("tensorflow.lite.tools.flatbuffer_utils", "Exporting to LiteRT")
    model = utils.read_model(os.fspath(path))
    rewritten = [_Rewriting(model, graph).run() for graph in model.subgraphs]
    if any(rewritten):
        utils.write_model(model, os.fspath(path))


class _Rewriting:
    """One subgraph; tensors are known by their index."""

    def __init__(self, model: Any, graph: Any) -> None:
        self._schema = require("tensorflow.lite.python.schema_py_generated", "Exporting to LiteRT")
        self._model, self._graph = model, graph
        self._types = _names(self._schema.TensorType)
        self._operators = _names(self._schema.BuiltinOperator)
        self._before: dict[int, list[Any]] = defaultdict(list)  # New operators, by id of the next.
        self._producers = {int(o): op for op in graph.operators for o in op.outputs}

    def run(self) -> bool:
        """Rewrites what can be; tells whether anything was."""
        found = [
            op
            for op in tuple(self._graph.operators)
            if (self._is(op, "CAST") and self._fold(op))
            or (self._is(op, "CONCATENATION") and self._concatenate(op))
        ]
        if found:
            self._finish()
        return bool(found)

    def _fold(self, cast: Any) -> bool:
        """cast → quantise becomes quantise."""
        readers = self._quantizing(cast.outputs[0])
        sources = [self._as_quantized(cast, op.outputs[0], op) for op in readers]
        if not sources or None in sources:
            self._forget(readers)
            return False
        for op, source in zip(readers, sources, strict=True):
            op.inputs = [source]
        return True

    def _concatenate(self, op: Any) -> bool:
        """A floating concatenation with a cast in it, quantised at once, becomes an integer one."""
        readers = self._quantizing(op.outputs[0])
        producers = [self._producers.get(int(i)) for i in op.inputs]
        if len(readers) != 1 or not any(p is not None and self._is(p, "CAST") for p in producers):
            return False
        target = readers[0].outputs[0]
        found = [
            self._source(int(i), p, target, op) for i, p in zip(op.inputs, producers, strict=True)
        ]
        sources = [source for source in found if source is not None]
        if len(sources) < len(found):
            self._forget([op])
            return False
        op.inputs = [self._quantize(source, target, op) for source in sources]
        op.outputs = [target]
        self._graph.operators.remove(readers[0])
        return True

    def _source(self, tensor: int, producer: Any, target: int, reader: Any) -> int | None:
        """Of one part of a concatenation, the tensor to quantise; `None` if there is none."""
        if producer is None:
            return tensor if tensor in self._graph.inputs else None
        if self._is(producer, "DEQUANTIZE"):
            return int(producer.inputs[0])
        return self._as_quantized(producer, target, reader)

    def _as_quantized(self, cast: Any, target: int, reader: Any) -> int | None:
        """A tensor with the integers that are cast, as QUANTIZE reads them; `None` if none can."""
        source, wanted = int(cast.inputs[0]), self._type(target)
        given = self._type(source)
        if not self._is(cast, "CAST") or self._scaled(source) or source in self._graph.outputs:
            return None
        if given in _READ.get(wanted, ()):
            self._tensor(source).quantization = self._unit_scale()
            return source
        if given not in _CAST.get(wanted, ()):
            return None
        numbers = self._new_tensor(source, wanted, self._unit_scale())
        self._insert("CAST", source, numbers, reader)
        return numbers

    def _quantize(self, source: int, target: int, reader: Any) -> int:
        like = self._tensor(target).quantization
        if self._numbers(source) == self._numbers(target):
            return source
        quantized = self._new_tensor(source, self._type(target), like)
        self._insert("QUANTIZE", source, quantized, reader)
        return quantized

    def _quantizing(self, tensor: int) -> list[Any]:
        """All that read a tensor, if all quantise it and it is no output; else nobody."""
        readers = [op for op in self._graph.operators if tensor in op.inputs]
        fits = tensor not in self._graph.outputs and all(self._is(op, "QUANTIZE") for op in readers)
        return readers if fits else []

    def _insert(self, name: str, source: int, output: int, reader: Any) -> None:
        new = self._schema.OperatorT()
        new.opcodeIndex = self._code(name)
        new.inputs, new.outputs = [source], [output]
        self._before[id(reader)].append(new)

    def _forget(self, readers: list[Any]) -> None:
        for reader in readers:
            self._before.pop(id(reader), None)

    def _finish(self) -> None:
        """Puts the new operators in, and takes those out whose results nobody reads any more."""
        ops = [o for op in self._graph.operators for o in (*self._before[id(op)], op)]
        read = {int(i) for op in ops for i in op.inputs} | {int(i) for i in self._graph.outputs}
        self._graph.operators = [
            op
            for op in ops
            if not (self._is(op, "CAST") or self._is(op, "DEQUANTIZE"))
            or int(op.outputs[0]) in read
        ]

    def _new_tensor(self, like: int, type_name: str, quantization: Any) -> int:
        old, new = self._tensor(like), self._schema.TensorT()
        new.name = old.name + f"_{type_name.lower()}_{len(self._graph.tensors)}".encode()
        new.type = getattr(self._schema.TensorType, type_name)
        new.shape, new.shapeSignature, new.hasRank = old.shape, old.shapeSignature, old.hasRank
        new.buffer = 0  # The empty one: its values are computed.
        new.quantization = quantization
        self._graph.tensors.append(new)
        return len(self._graph.tensors) - 1

    def _unit_scale(self) -> Any:
        quantization = self._schema.QuantizationParametersT()
        quantization.scale, quantization.zeroPoint = [1.0], [0]
        return quantization

    def _scaled(self, tensor: int) -> bool:
        # What this class has scaled itself may be read by a second cast.
        return self._numbers(tensor)[1] not in ([], [1.0])

    def _numbers(self, tensor: int) -> tuple[str, list[float], list[int]]:
        """What the values of a tensor stand for: their type, scale and zero point."""
        quantization = self._tensor(tensor).quantization
        if quantization is None or quantization.scale is None:
            return self._type(tensor), [], []
        return self._type(tensor), list(quantization.scale), list(quantization.zeroPoint)

    def _tensor(self, index: int) -> Any:
        return self._graph.tensors[index]

    def _type(self, tensor: int) -> str:
        return self._types[self._tensor(tensor).type]

    def _is(self, op: Any, name: str) -> bool:
        code = self._model.operatorCodes[op.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        return self._operators[number] == name

    def _code(self, name: str) -> int:
        """The index of an operator's code, which is added if the file has none."""
        number = getattr(self._schema.BuiltinOperator, name)
        for index, code in enumerate(self._model.operatorCodes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == number:
                return index
        code = self._schema.OperatorCodeT()
        code.builtinCode = number
        code.deprecatedBuiltinCode = min(number, 127)
        code.version = 1
        self._model.operatorCodes.append(code)
        return len(self._model.operatorCodes) - 1


def _names(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if name.isupper()}
