"""Where the units of a tensor lie."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any


def check_axis(axis: Any) -> int | None:
    """Returns `axis` as an int, whatever integer type it came in, or None for the whole tensor.

    Args:
        axis: What the user gave: an integer or None. An empty tuple or list means None too, as
            files of earlier versions have it.

    Raises:
        TypeError: If it is neither.
    """
    if axis is None or (isinstance(axis, (tuple, list)) and not axis):
        return None
    try:
        if isinstance(axis, bool):
            raise TypeError
        return operator.index(axis)
    except TypeError:
        raise TypeError(
            "SBPLayer needs one unit axis. Expected an integer, or None for one gate over the "
            f"whole tensor. Received: axis={axis!r} (of type {type(axis).__name__}). "
            "Pass, for instance, axis=-1 for channels_last and axis=1 for channels_first."
        ) from None


def count_units(axis: int | None, shape: Sequence[int | None], layer_name: str) -> int:
    """Returns how many units a tensor of `shape` has along `axis`.

    Args:
        axis: An integer, or None for the whole tensor.
        shape: Shape of the gated tensor, batch axis included.
        layer_name: Name for the messages.

    Raises:
        ValueError: If the axis is out of range, is the batch axis, or has no
            known size.
    """
    if axis is None:
        return 1
    rank = len(shape)
    if not -rank <= axis < rank:
        raise ValueError(
            f"SBPLayer '{layer_name}' finds no axis {axis} in its input of shape {tuple(shape)}. "
            f"Expected an integer from {-rank} to {rank - 1}. Received: axis={axis}. "
            "Give the axis along which the units lie, or axis=None for one gate over the whole "
            "tensor."
        )
    if axis % rank == 0:
        raise ValueError(
            f"SBPLayer '{layer_name}' cannot gate the batch axis: axis={axis} is axis 0 of its "
            f"input of shape {tuple(shape)}. Expected an axis that holds units. "
            "Give that axis, or axis=None for one gate over the whole tensor."
        )
    units = shape[axis]
    if units is None:
        raise ValueError(
            f"SBPLayer '{layer_name}' needs to know its number of units when it is built. "
            f"Expected a known size along axis {axis}. Received: input of shape {tuple(shape)}. "
            "Fix that size in the model's Input, or gate another axis."
        )
    return int(units)


def broadcast_shape(axis: int | None, rank: int, units: int, leading: int) -> list[int]:
    """Returns the shape that lines up values per example and unit with a tensor.

    Args:
        axis: An integer, or None for the whole tensor.
        rank: Rank of the tensor.
        units: Size along the unit axis.
        leading: Size of the batch axis: 1 for values shared by all examples,
            -1 for one value per example.
    """
    shape = [leading] + [1] * (rank - 1)
    if axis is not None:
        shape[axis] = units
    return shape
