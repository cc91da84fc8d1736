"""From a Keras model to a file that runs without Keras."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

import keras

from keras_sbp.deploy.atomic import check_target, staged
from keras_sbp.deploy.convert import require_tensorflow, to_litert, to_saved_model
from keras_sbp.deploy.litert import op_names
from keras_sbp.deploy.precision import float32_twin
from keras_sbp.deploy.signature import input_specs
from keras_sbp.deploy.verify import max_abs_error


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What `export` wrote.

    Attributes:
        path: The file or folder.
        format: `"litert"` or `"saved_model"`.
        bytes: Size on disk; of a folder, all files in it.
        ops: Names of the operations in a `.tflite` file, in order; empty for a SavedModel.
        batch_size: Size of the batch axis, `None` where it is free.
        max_abs_error: Largest difference from the Keras model on random inputs, `None` if it
            was not verified.
        prune_report: The report of `prune`, `None` if the model had no gates.
    """

    path: str
    format: str
    bytes: int
    ops: tuple[str, ...]
    batch_size: int | None
    max_abs_error: float | None
    prune_report: Any = None

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, ready for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["ops"] = list(self.ops)
        if self.prune_report is not None:
            values["prune_report"] = self.prune_report.to_dict()
        return values


@dataclasses.dataclass(frozen=True)
class Target:
    """Where a file goes, and what kind of file.

    Attributes:
        path: The file or folder.
        format: `"litert"` or `"saved_model"`.
        batch_size: Size of the batch axis, `None` where it is free.
    """

    path: pathlib.Path
    format: str
    batch_size: int | None


def target_of(
    path: str | os.PathLike[str], format: str | None, batch_size: int | str | None, overwrite: bool
) -> Target:
    """Checks what `keras_sbp.export` was given; see there.

    Raises:
        ImportError: If TensorFlow is not installed.
        ValueError: If the path does not fit the format, or the batch size is none.
        OSError: If the path exists and `overwrite` is false.
    """
    path = pathlib.Path(path)
    format = _format_of(path, format)
    batch_size = _batch_size(batch_size, format)
    check_target(path, folder=format == "saved_model", overwrite=overwrite)
    require_tensorflow()
    return Target(path, format, batch_size)


def write(model: keras.Model, target: Target, *, verify: bool) -> ExportReport:
    """Writes a model without gates beside its target, compares, and moves it into place."""
    specs = input_specs(model, target.batch_size)
    batch_size = keras.tree.flatten(specs)[0].shape[0]
    format = target.format
    with staged(target.path) as written:
        if format == "litert":
            # The converter insists on the suffix in lower case.
            raw = written.with_suffix(".tflite")
            to_litert(float32_twin(model), str(raw), specs)
            raw.rename(written)
        else:
            to_saved_model(model, str(written), specs)
        error = max_abs_error(model, specs, str(written), format) if verify else None
        ops = op_names(written) if format == "litert" else ()
        size = _size(written)
    return ExportReport(str(target.path), format, size, ops, batch_size, error)


def _format_of(path: pathlib.Path, format: str | None) -> str:
    suffix = path.suffix.lower()
    if format not in (None, "litert", "saved_model"):
        raise ValueError(
            f"Unknown export format: expected 'litert', 'saved_model' or None, received {format!r}."
        )
    if format is None and suffix not in ("", ".tflite"):
        raise ValueError(
            f"Cannot tell the export format of '{path}': expected the suffix '.tflite' (LiteRT) or "
            f"none (SavedModel folder), received '{path.suffix}'. For a folder with a dot in its "
            "name pass format='saved_model'."
        )
    if format == "litert" and suffix != ".tflite":
        raise ValueError(
            f"A LiteRT file must end in '.tflite', received '{path}'. Change the path, or pass "
            "format='saved_model'."
        )
    if format == "saved_model" and suffix in (".tflite", ".keras", ".h5", ".onnx"):
        raise ValueError(
            f"A SavedModel is a folder, expected a path without suffix, received '{path}'."
        )
    return format or ("litert" if suffix else "saved_model")


def _batch_size(batch_size: int | None | str, format: str) -> int | None:
    if batch_size == "auto":
        return 1 if format == "litert" else None
    whole = isinstance(batch_size, int) and not isinstance(batch_size, bool)
    if batch_size is not None and not (whole and batch_size > 0):
        raise ValueError(
            f"`batch_size` must be 'auto', None or a positive integer, received {batch_size!r}."
        )
    return batch_size


def _size(path: pathlib.Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
