"""ONNX files."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import keras
import numpy as np

from keras_sbp.formats.base import Batch, Format, Inputs, Runtime, register_format
from keras_sbp.formats.convert import (
    export_with_keras,
    refusal,
    statistics_as_constants,
    with_layer,
)
from keras_sbp.formats.packages import require
from keras_sbp.formats.precision import float32_twin
from keras_sbp.formats.quantization import Quantizing


@register_format
class ONNX(Format):
    """An `.onnx` file; it computes in float32."""

    name, title, suffix = "onnx", "ONNX", ".onnx"
    packages = ("tensorflow", "onnx", "tf2onnx")
    runtime = "onnxruntime"

    def convert(
        self, model: keras.Model, path: pathlib.Path, specs: Any, quantization: Quantizing | None
    ) -> None:
        """Writes a model, and puts right what tf2onnx does not."""
        model = float32_twin(model)
        _teach_erfc()
        with statistics_as_constants(model):
            export_with_keras(model, path, "onnx", specs)
        # What the converter does not know it copies, and the file loads nowhere.
        onnx = require("onnx", "Exporting to ONNX")
        written = onnx.load(path)
        failures = [
            with_layer(node.op_type, [node.name], model)
            for node in written.graph.node
            if not onnx.defs.has(node.op_type, node.domain)
        ]
        if failures:
            raise refusal(model, self.title, failures)
        if repair_transposed_convolutions(written):
            onnx.save(written, path)

    def load(self, path: pathlib.Path, num_threads: int) -> Runtime:
        """Loads a file into onnxruntime."""
        return _Session(path, num_threads)

    def ops(self, path: pathlib.Path) -> tuple[str, ...]:
        """Names of the operations in a file, in order."""
        nodes = require("onnx", "Reading an ONNX file").load(path).graph.node
        return tuple(node.op_type for node in nodes)


class _Session:
    def __init__(self, path: pathlib.Path, num_threads: int) -> None:
        ort = require("onnxruntime", "Running an ONNX file")
        options = ort.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # Errors only.
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._outputs = [item.name for item in self._session.get_outputs()]
        self._batch: Batch = {}

    @property
    def inputs(self) -> Inputs:
        return {
            item.name: (
                tuple(n if isinstance(n, int) else -1 for n in item.shape),
                _dtype(item.type),
            )
            for item in self._session.get_inputs()
        }

    def set_inputs(self, inputs: Batch) -> None:
        expected = self.inputs
        self._batch = {n: np.asarray(v, expected[n][1]) for n, v in inputs.items()}

    def invoke(self) -> list[np.ndarray]:
        return self._session.run(None, self._batch)

    def __call__(self, inputs: Batch) -> dict[str, np.ndarray]:
        self.set_inputs(inputs)
        return dict(zip(self._outputs, self.invoke(), strict=True))


def _dtype(said: str) -> np.dtype:
    """The dtype for "tensor(float)" and the like."""
    name = said.removeprefix("tensor(").removesuffix(")")
    return np.dtype({"float": "float32", "double": "float64", "string": "object"}.get(name, name))


@functools.cache
def _teach_erfc() -> None:
    """Tell tf2onnx what TensorFlow's Erfc is, which every exact GELU holds."""
    handlers = require("tf2onnx.handler", "Exporting to ONNX")

    @handlers.tf_op("Erfc")
    class _Erfc:
        @classmethod
        def version_9(cls, ctx: Any, node: Any, **_: Any) -> None:
            shapes, dtypes = node.output_shapes, node.output_dtypes
            name = f"{node.name}_complement"
            ctx.remove_node(node.name)
            one = ctx.make_const(f"{name}_one", np.array(1.0, "float32"))
            erf = ctx.make_node("Erf", [node.input[0]], name=f"{name}_erf")
            ctx.make_node(
                "Sub",
                [one.output[0], erf.output[0]],
                name=name,
                outputs=node.output,
                shapes=shapes,
                dtypes=dtypes,
            )


def repair_transposed_convolutions(onnx_model: Any) -> bool:
    """Say `output_padding` where tf2onnx says padding of less than nothing, which ONNX refuses.

    A transposed convolution may have rows that no row of its input reaches. TensorFlow adds them at
    the end.

    Args:
        onnx_model: The loaded model, which is changed.

    Returns:
        Whether anything was changed.
    """
    onnx = require("onnx", "Exporting to ONNX")
    changed = False
    for node in onnx_model.graph.node:
        given = {attribute.name: list(attribute.ints) for attribute in node.attribute}
        pads = given.get("pads", []) if node.op_type == "ConvTranspose" else []
        totals = [sum(ends) for ends in zip(*_halves(pads), strict=True)]
        if all(total >= 0 for total in totals):
            continue
        whole = [0 if total < 0 else pad for pad, total in zip(pads, totals * 2, strict=True)]
        values = {"pads": whole, "output_padding": [max(0, -total) for total in totals]}
        kept = [attribute for attribute in node.attribute if attribute.name not in values]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.attribute.extend(onnx.helper.make_attribute(*pair) for pair in values.items())
        changed = True
    return changed


def _halves(pads: list[int]) -> tuple[list[int], list[int]]:
    """Padding at the beginning of each axis, and at its end."""
    return pads[: len(pads) // 2], pads[len(pads) // 2 :]
