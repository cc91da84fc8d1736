"""Reading examples from `.npz` files."""

from __future__ import annotations

import math
import pathlib
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy_format

from keras_sbp.cli.archive import check_archive
from keras_sbp.cli.errors import UsageError

if TYPE_CHECKING:
    import keras

_INPUT_NAMES = ("x", "inputs", "x_train", "arr_0")
_HEADERS = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
_LABEL_NAMES = ("y", "labels", "y_train")


def read_inputs(path: str, model: keras.Model, option: str) -> Any:
    """Reads inputs of a model.

    Args:
        path: An `.npz` file with an array per input, under the input's name. For a model of one
            input, `x` will do, and so does any name in a file of one array.
        model: The model.
        option: The option that names the file, for messages.

    Returns:
        An array, or for several inputs, a list of arrays.

    Raises:
        UsageError: The file cannot be read, or does not fit the model.
    """
    return _inputs(_read(path), path, model, option)


def read_examples(path: str, model: keras.Model, option: str) -> tuple[Any, np.ndarray]:
    """Reads inputs of a model, and labels, from the array `y`.

    Returns:
        Inputs as from `read_inputs`, and the labels.

    Raises:
        UsageError: The file cannot be read, or does not fit the model.
    """
    arrays = _read(path)
    name = next((name for name in _LABEL_NAMES if name in arrays), None)
    if name is None:
        raise UsageError(
            f"{option} '{path}' has no labels: expected an array 'y', found {_listed(arrays)}."
        )
    labels = arrays.pop(name)
    inputs = _inputs(arrays, path, model, option)
    first = inputs[0] if isinstance(inputs, list) else inputs
    if labels.ndim == 0 or len(labels) != len(first):
        raise UsageError(
            f"{option} '{path}' has {len(first)} inputs, and '{name}' has the shape "
            f"{labels.shape}. Expected as many labels."
        )
    return inputs, labels


def _inputs(arrays: dict[str, np.ndarray], path: str, model: keras.Model, option: str) -> Any:
    if not getattr(model, "inputs", None):
        raise UsageError(
            f"{option} needs a model with declared inputs, and '{model.name}' has a `call` of its "
            "own. Call keras_sbp from Python instead."
        )
    found = []
    for tensor in model.inputs:
        name = _name_of(tensor.name, arrays, alone=len(model.inputs) == 1)
        if name is None:
            wanted = ", ".join(f"'{each.name}'" for each in model.inputs)
            raise UsageError(
                f"{option} '{path}' does not fit model '{model.name}': expected an array for each "
                f"of its inputs ({wanted}), found {_listed(arrays)}."
            )
        _check_shape(arrays[name], tensor, f"{option} '{path}', array '{name}'")
        found.append(arrays[name])
    if len({len(array) for array in found}) != 1:
        raise UsageError(f"{option} '{path}' has inputs of different lengths.")
    return found if len(found) > 1 else found[0]


def _name_of(wanted: str, arrays: dict[str, np.ndarray], alone: bool) -> str | None:
    if wanted in arrays:
        return wanted
    if not alone:
        return None
    if len(arrays) == 1:
        return next(iter(arrays))
    return next((name for name in _INPUT_NAMES if name in arrays), None)


def _check_shape(array: np.ndarray, tensor: Any, what: str) -> None:
    expected = tuple(tensor.shape)
    fits = array.ndim == len(expected) and all(
        size is None or size == given
        for size, given in zip(expected[1:], array.shape[1:], strict=True)
    )
    kinds, wanted = ("US", "words") if tensor.dtype == "string" else ("fiub", "numbers")
    if not fits or not len(array) or array.dtype.kind not in kinds:
        raise UsageError(
            f"{what} does not fit: expected {wanted} of shape {('any', *expected[1:])} with at "
            f"least one example, received {array.dtype} of shape {array.shape}."
        )


def _read(path: str) -> dict[str, np.ndarray]:
    file = pathlib.Path(path)
    check_archive(file, ".npz file, as numpy.savez writes it")
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                _check_array(archive, member)
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, MemoryError) as error:
        raise UsageError(f"'{file}' cannot be read as an .npz file: {error}") from error


def _check_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Compares the shape that an array declares with the bytes that are there for it."""
    with archive.open(member) as file:
        version = npy_format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"array '{member.filename}' has the unknown version {version}")
        shape, _, dtype = _HEADERS[version](file)
        needed = math.prod(shape) * dtype.itemsize
        if needed > member.file_size:
            raise ValueError(
                f"array '{member.filename}' declares the shape {shape}, {needed:,} bytes, and "
                f"{member.file_size:,} are there"
            )


def _listed(arrays: dict[str, np.ndarray]) -> str:
    return ", ".join(f"'{name}' {array.shape}" for name, array in arrays.items()) or "no array"
