"""Exported models in their own runtimes, all run in the same way."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import keras
import numpy as np

from keras_sbp.formats.base import Format
from keras_sbp.formats.inputs import input_specs, named_outputs, structured
from keras_sbp.formats.litert_model import LiteRTModel
from keras_sbp.formats.packages import require

Inputs = dict[str, tuple[tuple[int, ...], np.dtype]]
Batch = Mapping[str, np.ndarray]


class Runtime(Protocol):
    """A loaded model: `inputs` says what it takes, and it is run by input name.

    `set_inputs` puts a batch in place and `invoke` runs on it, which is what a measurement of
    latency times; calling the object does both and gives outputs by name.
    """

    @property
    def inputs(self) -> Inputs:
        """Shape (-1 where it is free) and dtype of each input, by name."""

    def set_inputs(self, inputs: Batch) -> None:
        """Put one batch in place."""

    def invoke(self) -> Any:
        """Run on the batch in place."""

    def __call__(self, inputs: Batch) -> dict[str, np.ndarray]:
        """Run on one batch; outputs by name, in the model's order."""


def load(path: str | os.PathLike[str], form: Format, num_threads: int = 1) -> Runtime:
    """Load an exported model into its own runtime.

    Args:
        path: The file or folder.
        form: Its format.
        num_threads: Threads it may use. A SavedModel and a `.keras` file use those of the whole
            process instead.

    Returns:
        A `Runtime`.

    Raises:
        ImportError: If the runtime is not installed.
    """
    path = os.fspath(path)
    if form.name == "litert":
        return LiteRTModel(path, num_threads)
    if form.name == "onnx":
        return _OnnxModel(path, num_threads)
    if form.name == "openvino":
        return _OpenVINOModel(path, num_threads)
    return _SavedModel(path) if form.name == "saved_model" else _KerasFile(path)


class _OnnxModel:
    def __init__(self, path: str, num_threads: int) -> None:
        ort = require("onnxruntime", "Running an ONNX file")
        options = ort.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # Errors only.
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._outputs = [item.name for item in self._session.get_outputs()]
        self._batch: Batch = {}

    @property
    def inputs(self) -> Inputs:
        return {
            item.name: (
                tuple(n if isinstance(n, int) else -1 for n in item.shape),
                _onnx_dtype(item.type),
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


class _OpenVINOModel:
    def __init__(self, path: str, num_threads: int) -> None:
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


class _SavedModel:
    def __init__(self, path: str) -> None:
        self._tf = require("tensorflow", "Running a SavedModel")
        # The signature holds no reference to the variables it reads.
        self._loaded = self._tf.saved_model.load(path)
        self._serve = self._loaded.signatures["serving_default"]
        self._batch: dict[str, Any] = {}

    @property
    def inputs(self) -> Inputs:
        return {
            name: (
                tuple(-1 if n is None else n for n in spec.shape),
                np.dtype(spec.dtype.as_numpy_dtype),
            )
            for name, spec in self._serve.structured_input_signature[1].items()
        }

    def set_inputs(self, inputs: Batch) -> None:
        self._batch = {name: self._tf.constant(value) for name, value in inputs.items()}

    def invoke(self) -> dict[str, Any]:
        return self._serve(**self._batch)

    def __call__(self, inputs: Batch) -> dict[str, np.ndarray]:
        self.set_inputs(inputs)
        return {name: value.numpy() for name, value in self.invoke().items()}


class _KerasFile:
    def __init__(self, path: str) -> None:
        with warnings.catch_warnings():
            # Saved without a training configuration, which running it does not need.
            warnings.filterwarnings("ignore", module="keras")
            self._model = keras.saving.load_model(path, compile=False, safe_mode=True)
        self._specs = input_specs(self._model, None)
        self._batch: Any = None

    @property
    def inputs(self) -> Inputs:
        return {
            spec.name: (
                tuple(-1 if n is None else n for n in spec.shape),
                np.dtype(object if spec.dtype == "string" else spec.dtype),
            )
            for spec in keras.tree.flatten(self._specs)
        }

    def set_inputs(self, inputs: Batch) -> None:
        self._batch = self._structured(inputs)

    def invoke(self) -> Any:
        return self._model.predict_on_batch(self._batch)

    def __call__(self, inputs: Batch) -> dict[str, np.ndarray]:
        outputs = self._model(self._structured(inputs), training=False)
        return {
            name: keras.ops.convert_to_numpy(value)
            for name, value in named_outputs(outputs).items()
        }

    def _structured(self, inputs: Batch) -> Any:
        names = list(self.inputs)
        if set(inputs) != set(names):
            # A Sequential model's input gets another name when it is loaded.
            inputs = dict(zip(names, inputs.values(), strict=True))
        return structured(self._specs, dict(inputs))


def _onnx_dtype(said: str) -> np.dtype:
    """The dtype for "tensor(float)" and the like."""
    name = said.removeprefix("tensor(").removesuffix(")")
    return np.dtype({"float": "float32", "double": "float64", "string": object}.get(name, name))
