"""Random numbers, knowledge and needs, of which each fits the others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from keras_sbp.comparing.drawing import filled
from keras_sbp.program.program import Tensor
from keras_sbp.program.units import Known, Needs, constant_everywhere, kept, tidy

BATCH_SIZE = 3
UNKNOWN_SIZE = 5  # what an unknown size becomes
SHARE = 0.4  # of units that are constant, or are not needed

Draw = Callable[[np.random.Generator, tuple[int, ...], str], np.ndarray]


def sizes(tensor: Tensor) -> tuple[int, ...]:
    """Returns the tensor's shape with a number for every unknown size."""
    return filled(tensor.shape, BATCH_SIZE, UNKNOWN_SIZE)


def unit_axes(tensor: Tensor) -> list[int]:
    """Returns the axes whose units can be told apart."""
    return [a for a, n in enumerate(tensor.shape) if a > 0 and n is not None]


def array(rng: np.random.Generator, tensor: Tensor, known: Known, draw: Draw) -> np.ndarray:
    """Returns random numbers for a tensor, with the constants that are known of it."""
    numbers = draw(rng, sizes(tensor), tensor.dtype)
    return np.where(np.isnan(places(tensor, known)), numbers, places(tensor, known)).astype(
        numbers.dtype
    )


def places(tensor: Tensor, known: Known) -> np.ndarray:
    """Returns the constant that is known of each place, NaN elsewhere."""
    result = np.full(sizes(tensor), np.nan)
    for axis, constant in known.items():
        constant = along(constant, axis, tensor.rank)
        result = np.where(np.isnan(constant), result, constant)
    return result


def along(numbers: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """Returns one number per unit, shaped so that it broadcasts along an axis."""
    return numbers.reshape([-1 if a == axis else 1 for a in range(rank)])


def block(tensor: Tensor, needs: Needs) -> np.ndarray:
    """Returns which places are kept along all axes, as a boolean array."""
    keeps = (along(keep, axis, tensor.rank) for axis, keep in needs.items())
    return functools.reduce(np.logical_and, keeps, np.ones(sizes(tensor), bool))


def restricted(numbers: np.ndarray, needs: Needs) -> np.ndarray:
    """Returns the kept units of an array."""
    for axis, keep in needs.items():
        numbers = np.compress(keep, numbers, axis)
    return numbers


def knowledge(
    rng: np.random.Generator, tensor: Tensor, constants: Sequence[float], number: int
) -> Known:
    """Returns what could be known of an input; six kinds of knowledge take turns.

    Args:
        constants: what constant units may hold.
        number: of the trial.
    """
    axes = unit_axes(tensor)
    if not axes or "float" not in tensor.dtype:
        return {}
    one_axis = [int(rng.choice(axes))]
    constant = float(rng.choice(constants))
    # The shift by one lets each kind meet each of two or three dtype policies.
    kind = (number + number // 6) % 6
    if kind == 4:
        return {axis: rng.choice(constants, tensor.size(axis)) for axis in one_axis}
    if kind == 5:
        return {} if rng.random() < 0.5 else constant_everywhere(constant, sizes(tensor))
    # Where units of several axes cross, they must hold the same constant.
    kinds = [(one_axis, constants), (axes, [constant]), (axes[-1:], [0.0]), (axes, [0.0])]
    known = {}
    for axis in kinds[kind][0]:
        gone = ~some(rng, tensor.size(axis))
        known[axis] = np.where(gone, rng.choice(kinds[kind][1], gone.size), np.nan)
    return tidy(known)


def needs(rng: np.random.Generator, tensor: Tensor, number: int) -> Needs:
    """Returns what could be needed of an output: of one axis, of all or of none."""
    axes = unit_axes(tensor)
    chosen = [axes[-1:], axes, axes[:1], []][(number + number // 4) % 4]
    return {axis: some(rng, tensor.size(axis)) for axis in chosen}


def some(rng: np.random.Generator, size: int) -> np.ndarray:
    """Returns a boolean array in which some are True, at least one."""
    keep = rng.random(size) >= SHARE
    keep[rng.integers(size)] = True
    return keep


def more(rng: np.random.Generator, needs: Needs) -> Needs:
    """Returns what a tensor may carry of which this is needed: exactly that, more, or all."""
    kind = rng.integers(3)
    if kind == 0:
        return dict(needs)
    return {a: keep | some(rng, keep.size) for a, keep in needs.items()} if kind == 1 else {}


def scales(
    rng: np.random.Generator, tensor: Tensor, known: Known, carried: Needs
) -> dict[int, np.ndarray]:
    """Returns pending scales: positive, or 0 for a unit that is known to be 0."""
    if "float" not in tensor.dtype:
        return {}
    result = {}
    for axis in unit_axes(tensor):
        if rng.random() < 0.6:
            size = tensor.size(axis)
            scale = rng.uniform(0.5, 2.0, size)
            is_zero = known.get(axis, np.full(size, np.nan)) == 0
            dropped = is_zero & (rng.random(size) < 0.5)
            result[axis] = np.where(dropped | ~kept(carried, axis, size), 0.0, scale)
    return result
