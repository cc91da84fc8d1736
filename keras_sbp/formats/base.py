"""The formats of exported models: their names, suffixes and needs."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import keras

from keras_sbp.formats.packages import require


@dataclasses.dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        name: What `format=` takes.
        title: What people call it.
        suffix: How its files end; `""` for a folder.
        export_name: What `keras.Model.export` calls it; `""` if that does not write it.
        any_backend: Whether Keras writes it on every backend, not on TensorFlow only.
        packages: What writing it needs.
        runtime: The package that runs it, `""` for Keras itself.
    """

    name: str
    title: str
    suffix: str
    export_name: str
    any_backend: bool
    packages: tuple[str, ...]
    runtime: str

    @property
    def folder(self) -> bool:
        """Whether the result is a folder."""
        return not self.suffix


FORMATS = {
    form.name: form
    for form in (
        Format("litert", "LiteRT", ".tflite", "litert", False, ("tensorflow",), "tensorflow"),
        Format(
            "saved_model", "SavedModel", "", "tf_saved_model", True, ("tensorflow",), "tensorflow"
        ),
        Format(
            "onnx", "ONNX", ".onnx", "onnx", False, ("tensorflow", "onnx", "tf2onnx"), "onnxruntime"
        ),
        Format(
            "openvino",
            "OpenVINO",
            ".xml",
            "openvino",
            False,
            ("tensorflow", "openvino"),
            "openvino",
        ),
        Format("keras", "Keras", ".keras", "", True, (), ""),
    )
}
_BY_SUFFIX = {form.suffix: form for form in FORMATS.values()}
_NAMES = ", ".join(repr(name) for name in FORMATS)
_ENDINGS = ", ".join(f"'{f.suffix}' ({f.title})" for f in FORMATS.values() if not f.folder)


def format_of(path: str | os.PathLike[str], name: str | None) -> Format:
    """The format to write, from its name or else from the suffix of the path.

    Raises:
        ValueError: If there is no such format, or the path does not fit it.
    """
    path = pathlib.Path(path)
    suffix = path.suffix.lower()
    if name is None:
        if suffix not in _BY_SUFFIX:
            raise ValueError(
                f"Cannot tell the export format of '{path}': expected the suffix {_ENDINGS} or "
                f"none (SavedModel folder), received '{path.suffix}'. For a folder with a dot in "
                "its name pass format='saved_model'."
            )
        return _BY_SUFFIX[suffix]
    if name not in FORMATS:
        raise ValueError(f"Unknown export format: expected {_NAMES} or None, received {name!r}.")
    form = FORMATS[name]
    if form.folder and suffix in {*_BY_SUFFIX, ".h5"} - {""}:
        raise ValueError(
            f"A SavedModel is a folder, expected a path without suffix, received '{path}'."
        )
    if not form.folder and suffix != form.suffix:
        raise ValueError(
            f"A file for {form.title} must end in '{form.suffix}', received '{path}'. Change the "
            "path, or choose another format."
        )
    return form


def format_of_existing(path: str | os.PathLike[str]) -> Format:
    """The format of a file or folder that is there.

    Raises:
        FileNotFoundError: If nothing is there.
        ValueError: If it is none of the formats.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no model at '{path}'. Check the path.")
    if path.is_dir():
        if not (path / "saved_model.pb").exists():
            raise ValueError(
                f"The folder '{path}' holds no model: expected a SavedModel, with a file "
                "'saved_model.pb' in it."
            )
        return FORMATS["saved_model"]
    form = _BY_SUFFIX.get(path.suffix.lower())
    if form is None or form.folder:
        raise ValueError(
            f"Cannot tell the format of the file '{path}': expected the suffix {_ENDINGS}, or the "
            f"folder of a SavedModel, received '{path.suffix}'."
        )
    return form


def check_backend(form: Format) -> None:
    """Refuse a format that Keras cannot write on the backend it runs on.

    Raises:
        RuntimeError: If it cannot.
    """
    backend = keras.backend.backend()
    if not form.any_backend and backend != "tensorflow":
        raise RuntimeError(
            f"Exporting to {form.title} needs Keras on TensorFlow: expected "
            f"KERAS_BACKEND=tensorflow, received {backend}. Export a '.keras' file here, then "
            "load and export that in a process started with KERAS_BACKEND=tensorflow. "
            "(A SavedModel can be exported from here.)"
        )


def check_packages(form: Format, *, run: bool) -> None:
    """Refuse a format whose packages are missing.

    Args:
        form: The format.
        run: Whether the file is going to be run as well.

    Raises:
        ImportError: If a package is not installed; names the extra that brings it.
    """
    for package in form.packages:
        require(package, f"Exporting to {form.title}")
    if run and form.runtime:
        require(form.runtime, f"Verifying a file for {form.title} (verify=True)")
