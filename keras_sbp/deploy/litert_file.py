"""Reading what is in a `.tflite` file, without running it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import ModuleType
from typing import Any

MISSING = (
    "Reading a `.tflite` file needs a LiteRT interpreter, and neither `ai_edge_litert` nor "
    "TensorFlow is installed. Install one: `pip install 'keras-sbp[tf]'`."
)
_FLOATS = ("FLOAT16", "FLOAT32", "FLOAT64", "BFLOAT16")


def op_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names of all operations in a `.tflite` file, in the order they run.

    Builtin operations carry the name of the file format (`"CONV_2D"`), custom ones their own;
    one that only the TensorFlow runtime can execute begins with `"Flex"`.

    Args:
        path: The `.tflite` file.

    Returns:
        A tuple of names over all subgraphs.
    """
    return tuple(name for _, _, name in _operators(path))


def float_ops(path: str | os.PathLike[str]) -> tuple[tuple[str, str], ...]:
    """The operations of a `.tflite` file that compute in floating point.

    Where floating inputs are quantised, and outputs turned back, is no computation.

    Args:
        path: The `.tflite` file.

    Returns:
        Pairs of an operation's name and the name of its first output tensor, which tells the
        layer.
    """
    types = {value: name for name, value in vars(_schema().TensorType).items() if name.isupper()}
    found = []
    for graph, operator, name in _operators(path):
        inputs = [operator.Inputs(i) for i in range(operator.InputsLength())]
        outputs = [operator.Outputs(i) for i in range(operator.OutputsLength())]
        border = (name == "QUANTIZE" and inputs[0] in _ends(graph, "Inputs")) or (
            name == "DEQUANTIZE" and outputs[0] in _ends(graph, "Outputs")
        )
        # An optional input that was left out is -1.
        tensors = [graph.Tensors(i) for i in (*inputs, *outputs) if i >= 0]
        if not border and any(types[tensor.Type()] in _FLOATS for tensor in tensors):
            found.append((name, graph.Tensors(outputs[0]).Name().decode()))
    inner = [pair for pair in found if pair[0] not in ("QUANTIZE", "DEQUANTIZE")]
    return tuple(inner or found)


def _operators(path: str | os.PathLike[str]) -> Iterator[tuple[Any, Any, str]]:
    schema = _schema()
    with open(path, "rb") as file:
        model = schema.Model.GetRootAsModel(file.read(), 0)
    builtin = {code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()}
    for g in range(model.SubgraphsLength()):
        graph = model.Subgraphs(g)
        for i in range(graph.OperatorsLength()):
            operator = graph.Operators(i)
            code = model.OperatorCodes(operator.OpcodeIndex())
            # Files from before schema 3a keep the number in the older, 8-bit field.
            number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            custom = code.CustomCode()
            yield graph, operator, custom.decode() if custom else builtin[number]


def _ends(graph: Any, which: str) -> set[int]:
    count = getattr(graph, f"{which}Length")()
    return {getattr(graph, which)(i) for i in range(count)}


def _schema() -> ModuleType:
    try:
        from ai_edge_litert import schema_py_generated

        return schema_py_generated
    except ImportError:
        pass
    try:
        from tensorflow.lite.python import schema_py_generated

        return schema_py_generated
    except ImportError as error:
        raise ImportError(MISSING) from error
