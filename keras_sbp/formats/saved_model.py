"""SavedModel folders."""

from __future__ import annotations

import pathlib
from typing import Any

import keras
import numpy as np

from keras_sbp.formats.base import Batch, Format, Inputs, Runtime, register_format
from keras_sbp.formats.convert import export_with_keras
from keras_sbp.formats.packages import require
from keras_sbp.formats.quantization import Quantizing

# Everything TensorFlow writes into a SavedModel. A folder that holds anything else is not ours.
_ENTRIES = {
    "saved_model.pb",
    "saved_model.pbtxt",
    "keras_metadata.pb",
    "fingerprint.pb",
    "variables",
    "assets",
    "assets.extra",
}


@register_format
class SavedModel(Format):
    """A folder with a SavedModel, which has the signature `serving_default`."""

    name, title, suffix, folder = "saved_model", "SavedModel", "", True
    packages = ("tensorflow",)
    runtime = "tensorflow"
    any_backend = True
    threads = False

    def convert(
        self, model: keras.Model, path: pathlib.Path, specs: Any, quantization: Quantizing | None
    ) -> None:
        """Writes a model."""
        export_with_keras(model, path, "tf_saved_model", specs)

    def load(self, path: pathlib.Path, num_threads: int) -> Runtime:
        """Loads the signature of a SavedModel."""
        return _Signature(path)

    def is_at(self, path: pathlib.Path) -> bool:
        """Whether a path is a folder with a SavedModel in it."""
        return (path / "saved_model.pb").exists()

    def check_replaceable(self, path: pathlib.Path) -> None:
        """Refuses to write over a folder that holds anything but a SavedModel."""
        entries = {entry.name for entry in path.iterdir()}
        foreign = sorted(entries - _ENTRIES)
        if foreign or (entries and not entries & {"saved_model.pb", "saved_model.pbtxt"}):
            found = f"'{foreign[0]}' among others" if foreign else "no 'saved_model.pb'"
            raise FileExistsError(
                f"'{path}' is not replaced: expected a folder with nothing but a SavedModel in it, "
                f"found {found}. Choose another path, or remove the folder yourself."
            )


class _Signature:
    def __init__(self, path: pathlib.Path) -> None:
        self._tf = require("tensorflow", "Running a SavedModel")
        # The signature holds no reference to the variables it reads.
        self._loaded = self._tf.saved_model.load(str(path))
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
