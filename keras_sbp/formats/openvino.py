"""OpenVINO models, which are two files."""

from __future__ import annotations

import contextlib
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_sbp.formats.base import Batch, Format, Inputs, Runtime, register_format
from keras_sbp.formats.convert import (
    export_with_keras,
    refusal,
    statistics_as_constants,
    traced_nodes,
    with_layer,
)
from keras_sbp.formats.packages import require
from keras_sbp.formats.precision import float32_twin
from keras_sbp.formats.quantization import Quantizing

# OpenVINO has no tables of words, and makes of each an input that the model does not have.
_LOST_TABLE = r"Parameter \S+/(\w+)/table_handle"


@register_format
class OpenVINO(Format):
    """An `.xml` file with its weights beside it in `.bin`; it computes in float32."""

    name, title, suffix = "openvino", "OpenVINO", ".xml"
    packages = ("tensorflow", "openvino")
    runtime = "openvino"

    def convert(
        self, model: keras.Model, path: pathlib.Path, specs: Any, quantization: Quantizing | None
    ) -> None:
        """Writes a model."""
        model = float32_twin(model)
        ov = require("openvino", "Exporting to OpenVINO")
        try:
            with statistics_as_constants(model), _outputs_alone(ov):
                export_with_keras(model, path, "openvino", specs)
        except (ov.frontend.OpConversionFailure, RuntimeError) as error:
            ops = _missing(str(error))
            if ops:
                nodes = traced_nodes(model, specs, "Exporting to OpenVINO")
                found = [
                    with_layer(node.op, [node.name], model) for node in nodes if node.op in ops
                ]
                raise refusal(model, self.title, found or ops) from error
            if isinstance(error, ov.frontend.OpConversionFailure):
                raise refusal(model, self.title, [str(error)]) from error
            raise

    def load(self, path: pathlib.Path, num_threads: int) -> Runtime:
        """Compiles a model for the processor."""
        return _Compiled(path, num_threads)

    def ops(self, path: pathlib.Path) -> tuple[str, ...]:
        """Names of the operations in a model, in order."""
        core = require("openvino", "Reading an OpenVINO model").Core()
        return tuple(op.get_type_name() for op in core.read_model(path).get_ordered_ops())

    def files(self, path: pathlib.Path) -> tuple[pathlib.Path, ...]:
        """The `.xml` file, and the `.bin` file with the weights."""
        return path, path.with_suffix(".bin")


class _Compiled:
    def __init__(self, path: pathlib.Path, num_threads: int) -> None:
        ov = require("openvino", "Running an OpenVINO model")
        core = ov.Core()
        options = {"INFERENCE_NUM_THREADS": num_threads, "PERFORMANCE_HINT": "LATENCY"}
        # The processor may compute in float16 or bfloat16 where it can, unless told not to.
        options["INFERENCE_PRECISION_HINT"] = "f32"
        self._model = core.compile_model(core.read_model(path), "CPU", options)
        self._request = self._model.create_infer_request()
        self._batch: Batch = {}

    @property
    def inputs(self) -> Inputs:
        return {
            item.any_name: (
                tuple(n.get_length() if n.is_static else -1 for n in item.partial_shape),
                np.dtype(item.element_type.to_dtype()),
            )
            for item in self._model.inputs
        }

    def set_inputs(self, inputs: Batch) -> None:
        expected = self.inputs
        self._batch = {n: np.asarray(v, expected[n][1]) for n, v in inputs.items()}

    def invoke(self) -> Any:
        return self._request.infer(self._batch)

    def __call__(self, inputs: Batch) -> dict[str, np.ndarray]:
        self.set_inputs(inputs)
        outputs = self.invoke()
        return {f"output_{i}": np.array(outputs[i]) for i in range(len(self._model.outputs))}


def _missing(said: str) -> list[str]:
    """The operations that an error of OpenVINO's says it does not have."""
    found = re.search(r"No conversion rule found for operations: (.+)", said)
    return re.split(r",\s*", found[1].strip()) if found else re.findall(_LOST_TABLE, said)


@contextlib.contextmanager
def _outputs_alone(ov: Any) -> Iterator[None]:
    """While this lasts, OpenVINO converts what the outputs of a function need, and nothing else.

    Otherwise what is computed inside a layer and read by nobody becomes an output of the file (the
    last state of an LSTM), or has no counterpart (random numbers that are for training).
    """
    convert = ov.convert_model

    def convert_outputs(function: Any) -> Any:
        traced = function.get_concrete_function()
        return convert(traced, output=[tensor.name for tensor in traced.graph.outputs])

    try:
        ov.convert_model = convert_outputs
        yield
    finally:
        ov.convert_model = convert
