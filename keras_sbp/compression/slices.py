"""Which numbers of the weights of a network became the weights of a smaller one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import keras
import numpy as np

from keras_sbp.program.rebuild import Rebuilt

# Up to which all whole numbers are exact.
_EXACT = {"bfloat16": 2**8, "float16": 2**11, "float32": 2**24, "float64": 2**53}


@dataclass(frozen=True)
class Slice:
    """The numbers of a weight that a smaller one holds.

    Attributes:
        source: the weight of the large network.
        places: of its numbers, counted in the order of memory; in the shape of the smaller one.
    """

    source: keras.Variable
    places: np.ndarray

    def of(self, value: np.ndarray) -> np.ndarray:
        """Returns these numbers of an array of the source's shape."""
        return value.reshape(-1)[self.places]


def slices_of(
    layers: Iterable[keras.layers.Layer], make: Callable[[], Rebuilt]
) -> tuple[Rebuilt, dict[int, Slice]]:
    """Makes a smaller network, and finds out what its weights are made of.

    It is made of numbered weights, too, and the numbers are read where they have come to.

    Args:
        layers: those of the large network. They have their weights again when this returns.
        make: Makes the small network of the weights that they have.

    Returns:
        The small network, and by the id of each of its weights the `Slice` that it is.

    Raises:
        RuntimeError: a layer that trains has other weights than before, or other numbers in them.
    """
    layers = list(layers)
    small = make()
    values = {id(w): _host(w) for layer in layers for w in layer.variables}
    pairs = list(_pairs(layers, small))  # in the same order whenever it is made
    places = {id(new): np.zeros(tuple(new.shape), np.int64) for _, new in pairs}
    numbered = [old for old, _ in pairs if _exact(old) and old.shape]
    passes = max((_digits(old) for old in numbered), default=0)
    try:
        for digit in range(passes):
            for old in numbered:
                base = _exact(old)
                number = np.arange(math.prod(old.shape), dtype=np.int64) // base**digit % base
                old.assign(number.reshape(old.shape))
            for (old, new), (_, again) in zip(pairs, _pairs(layers, make()), strict=True):
                if _exact(old) and old.shape:
                    read = np.rint(_host(again).astype(np.float64)).astype(np.int64)
                    places[id(new)] += read * _exact(old) ** digit
    finally:
        for layer in layers:
            for weight in layer.variables:
                weight.assign(values[id(weight)])
    slices = {}
    for old, new in pairs:
        if _exact(old) and old.shape:
            slices[id(new)] = Slice(old, places[id(new)])
        else:  # counters and states of random generators, which no handler cares for
            slices[id(new)] = Slice(old, np.arange(math.prod(old.shape)).reshape(old.shape))
            if old.shape == new.shape:
                new.assign(values[id(old)])
        _check(old, new, slices[id(new)], values[id(old)])
    return small, slices


def _pairs(
    layers: Iterable[keras.layers.Layer], small: Rebuilt
) -> Iterable[tuple[keras.Variable, keras.Variable]]:
    for layer in layers:
        new = small.layers.get(id(layer))
        if new is None:
            continue
        if len(new.variables) == len(layer.variables):
            yield from zip(layer.variables, new.variables, strict=True)
        elif layer.trainable_variables or new.trainable_variables:
            raise RuntimeError(
                f"Layer '{layer.name}' has {len(layer.variables)} weights, and its handler makes "
                f"{len(new.variables)} of them, so that the state of the optimizer cannot follow. "
                "Expected a handler whose rebuild() keeps them. prune() can take the units out."
            )


def _check(old: keras.Variable, new: keras.Variable, slice_: Slice, value: np.ndarray) -> None:
    inside = slice_.places.max(initial=0) < value.size
    if not inside or not np.array_equal(slice_.of(value), _host(new), equal_nan=True):
        raise RuntimeError(
            f"The weight '{new.path}' that a handler makes is no part of '{old.path}', so that the "
            "state of the optimizer cannot follow. Expected a handler whose rebuild() takes "
            "numbers as they are. prune() can take the units out."
        )


def _exact(variable: keras.Variable) -> int:
    return _EXACT.get(keras.backend.standardize_dtype(variable.dtype), 0)


def _digits(variable: keras.Variable) -> int:
    size, digits = max(1, math.prod(variable.shape)), 1
    while _exact(variable) ** digits < size:
        digits += 1
    return digits


def _host(variable: keras.Variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable.value)
