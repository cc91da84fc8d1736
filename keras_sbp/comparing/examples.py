"""Batches that the user gives, in any of the forms in which Keras takes data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_sbp.comparing.drawing import Batch, ComparedInput, Slot

GIVEN = "given"


def given(examples: Any, slots: Sequence[Slot], argument: str, most: int) -> Batch:
    """Returns examples as a batch.

    Args:
        examples: see `arrays_of`.
        slots: the model's inputs.
        argument: the name of the argument that holds the examples, for messages.
        most: so many examples are taken; an input of fixed batch size takes as many as it needs.

    Raises:
        ValueError: they do not fit the model.
    """
    fixed = next((slot.shape[0] for slot in slots if slot.shape and slot.shape[0]), None)
    count = fixed or most
    arrays = [
        array[:count] if slot.shape else array
        for slot, array in zip(slots, arrays_of(examples, slots, argument, count), strict=True)
    ]
    if fixed and any(slot.shape and len(a) < fixed for slot, a in zip(slots, arrays, strict=True)):
        raise ValueError(
            f"`{argument}` has fewer examples than a batch of the model: expected at least {fixed}."
        )
    inputs = [
        ComparedInput(slot.name, array.shape, slot.dtype, GIVEN)
        for slot, array in zip(slots, arrays, strict=True)
    ]
    return Batch(arrays, tuple(inputs))


def arrays_of(examples: Any, slots: Sequence[Slot], argument: str, enough: int) -> list[np.ndarray]:
    """Returns examples as one array for each input.

    Args:
        examples: an array, a list or a dict as the model is called with, an `(x, y)` tuple as
            `fit` takes, a `tf.data.Dataset`, a `keras.utils.PyDataset`, a generator, or any
            other iterable of batches.
        slots: the model's inputs.
        argument: the name of the argument that holds the examples, for messages.
        enough: of an iterable, batches are read until there are so many examples.

    Raises:
        ValueError: they do not fit the model.
    """
    if not _is_iterable_of_batches(examples):
        return _fitting(_inputs_of(examples, slots), slots, argument)
    parts: list[list[np.ndarray]] = []
    count = 0
    for batch in _batches_of(examples):
        parts.append(_fitting(_inputs_of(batch, slots), slots, argument))
        count += len(parts[-1][0]) if slots[0].shape else 1
        if count >= enough:
            break
    if not parts:
        raise ValueError(
            f"`{argument}` holds no batch of examples. Expected inputs of the model. Give a new "
            "generator if it was used up before."
        )
    if not all(slot.shape for slot in slots):
        return parts[0]
    lengths = {array.shape[1:] for array in (p[0] for p in parts)}
    if len(lengths) > 1:  # batches of sequences, each padded to its own length
        return parts[0]
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


def _is_iterable_of_batches(examples: Any) -> bool:
    if isinstance(examples, Mapping | list | tuple | str | bytes):
        return False
    if isinstance(examples, keras.utils.PyDataset):
        return True
    return hasattr(examples, "__iter__") and not hasattr(examples, "shape")


def _batches_of(examples: Any) -> Iterator[Any]:
    if isinstance(examples, keras.utils.PyDataset):
        return (examples[i] for i in range(examples.num_batches or 1))
    return iter(examples)


def _inputs_of(batch: Any, slots: Sequence[Slot]) -> Any:
    """The inputs of a batch, which as a tuple may have labels and weights behind them."""
    if not isinstance(batch, tuple) or not 1 <= len(batch) <= 3:
        return batch
    flat = keras.tree.flatten(batch)
    is_inputs = (
        len(flat) == len(slots)
        and len(slots) > 1
        and all(_fits(x, slot) for x, slot in zip(flat, slots, strict=True))
    )
    return list(batch) if is_inputs else batch[0]


def _fitting(inputs: Any, slots: Sequence[Slot], argument: str) -> list[np.ndarray]:
    """The arrays in the order of the model's inputs."""
    leaves = _by_name(inputs, slots)
    if not leaves and not _is_dict_of_arrays(inputs):
        leaves = keras.tree.flatten(inputs)
    if isinstance(inputs, list) and len(slots) == 1 and len(leaves) != 1:
        leaves = [inputs]  # an array, written as a list
    if len(leaves) != len(slots) or not all(map(_fits, leaves, slots)):
        received = inputs.items() if isinstance(inputs, Mapping) else [("", x) for x in leaves]
        raise ValueError(
            f"`{argument}` does not fit the model. Expected a batch of its inputs, "
            f"{_wanted(slots)}, batch axis first: an array, a list or dict of arrays as the model "
            "is called with, (x, y), a data set in batches. Received: "
            f"{', '.join(_described(*each) for each in received) or 'nothing'}."
        )
    arrays = [_array(leaf) for leaf in leaves]
    counts = {len(a) for a, slot in zip(arrays, slots, strict=True) if slot.shape}
    if len(counts) > 1 or 0 in counts:
        found = " and ".join(map(str, sorted(counts)))
        several = " for different inputs" if len(counts) > 1 else ""
        raise ValueError(
            f"`{argument}` has {found} examples{several}. Expected the same number for each "
            "input, at least one."
        )
    for array, slot in zip(arrays, slots, strict=True):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(
                f"`{argument}` for input '{slot.name}' is NaN or infinite in places, expected "
                "finite numbers. Remove these examples."
            )
    return [_cast(array, slot.dtype) for array, slot in zip(arrays, slots, strict=True)]


def _is_dict_of_arrays(inputs: Any) -> bool:
    return isinstance(inputs, Mapping) and not any(map(keras.tree.is_nested, inputs.values()))


def _by_name(inputs: Any, slots: Sequence[Slot]) -> list[Any]:
    """The leaves of a dict by the names of inputs; nothing where these are not among its keys."""
    for names in zip(*((slot.name, *slot.also) for slot in slots), strict=True):
        if isinstance(inputs, Mapping) and set(names) <= set(inputs) and _are_distinct(names):
            return [inputs[name] for name in names]
    return []


def _are_distinct(names: Sequence[str]) -> bool:
    return len(set(names)) == len(names)


def _fits(leaf: Any, slot: Slot) -> bool:
    if _is_ragged_or_sparse(leaf):
        return False
    array = _array(leaf)
    text = array.dtype.kind in "OSU"
    if array.ndim != len(slot.shape) or text != (slot.dtype == "string"):
        return False
    return all(n in (None, m) for n, m in zip(slot.shape[1:], array.shape[1:], strict=True))


def _is_ragged_or_sparse(leaf: Any) -> bool:
    return "Sparse" in type(leaf).__name__ or "Ragged" in type(leaf).__name__


def _array(leaf: Any) -> np.ndarray:
    if isinstance(leaf, list | tuple | int | float | str):
        return np.asarray(leaf)
    if hasattr(leaf, "detach") or keras.ops.is_tensor(leaf):
        return np.asarray(keras.ops.convert_to_numpy(leaf))
    return np.asarray(leaf)


def _cast(array: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "string":
        return array.astype(object)
    return keras.ops.convert_to_numpy(keras.ops.cast(array, dtype))


def _described(key: str, leaf: Any) -> str:
    name = f"'{key}' " if key else ""
    if keras.tree.is_nested(leaf):
        return f"{name}{type(leaf).__name__}"
    if _is_ragged_or_sparse(leaf):
        return f"{name}a {type(leaf).__name__} (give a dense array)"
    array = _array(leaf)
    return f"{name}{array.dtype} of shape {array.shape}"


def _wanted(slots: Sequence[Slot]) -> str:
    return ", ".join(f"'{slot.name}' {slot.dtype} {slot.shape}" for slot in slots)
