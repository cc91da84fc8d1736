"""What `keras_sbp.export` was asked for, checked before any work is done."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import keras

from keras_sbp._arguments import check_count
from keras_sbp.formats.atomic import check_target
from keras_sbp.formats.base import FORMATS, Format, format_of
from keras_sbp.formats.packages import require
from keras_sbp.formats.quantization import QUANTIZATIONS


@dataclasses.dataclass(frozen=True)
class Target:
    """Where a file goes, and what kind of file.

    Attributes:
        path: The file or folder.
        format: Its format.
        batch_size: Size of the batch axis, `None` where it is free.
        quantization: One of `QUANTIZATIONS`, `None` for none.
        integer_io: Whether inputs and outputs are integers too.
        verify: Whether the file is run and compared with the model.
    """

    path: pathlib.Path
    format: Format
    batch_size: int | None
    quantization: str | None = None
    integer_io: bool = False
    verify: bool = True


def target_of(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    batch_size: int | str | None = "auto",
    quantization: str | None = None,
    integer_io: bool = False,
    calibrated: bool = False,
    verify: bool = True,
    overwrite: bool = False,
) -> Target:
    """Checks what `keras_sbp.export` was given; see there.

    Args:
        path, format, batch_size, quantization, integer_io, verify, overwrite: As given to
            `keras_sbp.export`.
        calibrated: Whether calibration data were given.

    Returns:
        The `Target`.

    Raises:
        ImportError: If a package is not installed.
        ValueError: If the arguments do not fit each other.
        RuntimeError: If Keras runs on a backend that cannot write this format.
        OSError: If the path exists and `overwrite` is false, or cannot be written.
    """
    path = pathlib.Path(path)
    form = format_of(path, format)
    batch_size = _batch_size(batch_size, form)
    _check_quantization(quantization, form, integer_io=integer_io, calibrated=calibrated)
    for entry in form.files(path):
        check_target(entry, folder=form.folder, overwrite=overwrite)
    if path.exists():
        form.check_replaceable(path)
    _check_backend(form)
    _check_packages(form, run=verify)
    return Target(path, form, batch_size, quantization, integer_io, verify)


def _batch_size(batch_size: int | None | str, form: Format) -> int | None:
    if batch_size == "auto":
        return form.batch_size
    if batch_size is None:
        return None
    batch_size = check_count("export", "batch_size", batch_size, otherwise="'auto', None or ")
    if not form.fixes_batch_size:
        raise ValueError(
            f"A {form.suffix} file keeps the batch axis of the model: expected batch_size='auto' "
            f"or None, received {batch_size}. Fix the batch size in the model's own Input instead."
        )
    return batch_size


def _check_quantization(
    name: str | None, form: Format, *, integer_io: bool, calibrated: bool
) -> None:
    if name is not None and name not in QUANTIZATIONS:
        names = ", ".join(repr(known) for known in QUANTIZATIONS)
        raise ValueError(f"`quantization` must be None or one of {names}, received {name!r}.")
    if name is not None and name not in form.quantizations:
        fitting = [other for other in FORMATS.values() if name in other.quantizations]
        raise ValueError(
            f"quantization={name!r} is for {' and '.join(other.title for other in fitting)}: "
            f"expected a path that ends in {' or '.join(repr(x.suffix) for x in fitting)}, "
            f"received the format {form.name!r}."
        )
    integer = name is not None and QUANTIZATIONS[name].integer is not None
    if integer_io and not integer:
        raise ValueError(
            "integer_io=True needs a file that computes in integers: expected quantization='int8' "
            f"or 'int16x8', received {name!r}."
        )
    if integer and not calibrated:
        raise ValueError(
            f"quantization={name!r} needs examples to find the range of every tensor: expected "
            "calibration_data, inputs of the model as for model.predict, a few hundred of them, "
            "received None. quantization='dynamic_int8' needs no data."
        )


def _check_backend(form: Format) -> None:
    backend = keras.backend.backend()
    if not form.any_backend and backend != "tensorflow":
        raise RuntimeError(
            f"Exporting to {form.title} needs Keras on TensorFlow: expected "
            f"KERAS_BACKEND=tensorflow, received {backend}. Export a '.keras' file here, then "
            "load and export that in a process started with KERAS_BACKEND=tensorflow. "
            "(A SavedModel can be exported from here.)"
        )


def _check_packages(form: Format, *, run: bool) -> None:
    for package in form.packages:
        require(package, f"Exporting to {form.title}")
    if run and form.runtime:
        require(form.runtime, f"Verifying a file for {form.title} (verify=True)")
