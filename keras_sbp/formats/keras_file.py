"""Keras's own files, with stock layers only."""

from __future__ import annotations

import pathlib
import warnings
from typing import Any

import keras
import numpy as np

from keras_sbp.formats.base import Batch, Format, Inputs, Runtime, register_format, without_ours
from keras_sbp.formats.inputs import input_specs, named_outputs, structured
from keras_sbp.formats.quantization import Quantizing


@register_format
class KerasFile(Format):
    """A `.keras` file, which keeps the batch axis of the model."""

    name, title, suffix = "keras", "Keras", ".keras"
    any_backend = True
    fixes_batch_size = False
    threads = False

    def convert(
        self, model: keras.Model, path: pathlib.Path, specs: Any, quantization: Quantizing | None
    ) -> None:
        """Saves a model."""
        model.save(path)

    def load(self, path: pathlib.Path, num_threads: int) -> Runtime:
        """Loads a model in safe mode."""
        return _Loaded(path)

    def modules(self) -> list[str]:
        """Where the classes are defined that this process has registered with Keras."""
        classes = (type(self), *keras.saving.get_custom_objects().values())
        return without_ours(str(each.__module__) for each in classes)


class _Loaded:
    def __init__(self, path: pathlib.Path) -> None:
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
