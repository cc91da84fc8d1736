"""What `keras_sbp.export` was asked for, checked before any work is done."""

from __future__ import annotations

import dataclasses
import os
import pathlib

from keras_sbp.formats.atomic import check_target
from keras_sbp.formats.base import Format, check_backend, check_packages, format_of
from keras_sbp.formats.quantization import check_quantization


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
    check_quantization(quantization, form, integer_io=integer_io, calibrated=calibrated)
    for entry in (path, path.with_suffix(".bin")) if form.name == "openvino" else (path,):
        check_target(entry, folder=form.folder, overwrite=overwrite)
    check_backend(form)
    check_packages(form, run=verify)
    return Target(path, form, batch_size, quantization, integer_io, verify)


def _batch_size(batch_size: int | None | str, form: Format) -> int | None:
    if batch_size == "auto":
        return 1 if form.name == "litert" else None
    whole = isinstance(batch_size, int) and not isinstance(batch_size, bool)
    if batch_size is not None and not (whole and batch_size > 0):
        raise ValueError(
            f"`batch_size` must be 'auto', None or a positive integer, received {batch_size!r}."
        )
    if form.name == "keras" and batch_size is not None:
        raise ValueError(
            "A .keras file keeps the batch axis of the model: expected batch_size='auto' or None, "
            f"received {batch_size}. Fix the batch size in the model's own Input instead."
        )
    return batch_size
