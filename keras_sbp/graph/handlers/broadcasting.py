"""Operands of different shapes that are combined number by number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_sbp.graph.builder import Builder
from keras_sbp.graph.handlers.common import constant_slices
from keras_sbp.graph.slim import Slim
from keras_sbp.graph.trace import Op
from keras_sbp.graph.units import Known, Needs


@dataclass(frozen=True, eq=False)
class Operand:
    """One of the things that are combined: a tensor, or fixed numbers.

    Attributes:
        shape: aligned with the output's at the last axis.
        index: the number of the tensor among the op's inputs.
        fixed: the numbers, as they stand in the call.
        array: the numbers in float64, with as many axes as the output.
    """

    shape: tuple[int | None, ...]
    index: int | None = None
    fixed: Any = None
    array: np.ndarray | None = None

    def own_axis(self, op: Op, axis: int) -> int | None:
        """Returns the axis that lies under one of the output's, or None where there is none."""
        own = axis - (op.outputs[0].rank - len(self.shape))
        return own if own > 0 else None

    def has_units_of(self, op: Op, axis: int) -> bool:
        """Tells whether the operand has one unit for each of the output's along an axis."""
        own, size = self.own_axis(op, axis), op.outputs[0].shape[axis]
        return own is not None and size is not None and self.shape[own] == size

    def constants(self, op: Op, known: list[Known], axis: int) -> np.ndarray:
        """Returns the constants along an axis of the output, repeated where it broadcasts."""
        size = op.outputs[0].shape[axis]
        if self.array is not None:
            return np.broadcast_to(constant_slices(self.array, axis), size)
        own = self.own_axis(op, axis)
        return np.broadcast_to(known[self.index].get(own, np.array([np.nan])), size)

    def needs(self, op: Op, needed: Needs) -> Needs:
        """Returns what must be there of the operand for the needed units of the output."""
        return {
            self.own_axis(op, axis): keep
            for axis, keep in needed.items()
            if self.has_units_of(op, axis)
        }


def align_operands(
    op: Op,
    operands: list[Operand],
    slims: dict[int, Slim],
    build: Builder,
    but_axes: frozenset[int] = frozenset(),
) -> tuple[dict[int, Slim], Needs]:
    """Settles operands and makes them carry the same units; returns what the output carries."""
    slims = {i: build.settle(slim, but_axes) for i, slim in slims.items()}
    carried = _carried(op, operands, slims)
    if any(not np.array_equal(keep, keeps[0]) for keeps in carried.values() for keep in keeps):
        slims = {i: build.align(op, i, slim) for i, slim in slims.items()}
        carried = _carried(op, operands, slims)
    return slims, {axis: keeps[0] for axis, keeps in carried.items()}


def _carried(
    op: Op, operands: list[Operand], slims: dict[int, Slim]
) -> dict[int, list[np.ndarray]]:
    """Output axis → what each operand that has this axis carries there."""
    carried: dict[int, list[np.ndarray]] = {}
    for axis in range(1, op.outputs[0].rank):
        for operand in operands:
            if operand.index in slims and operand.has_units_of(op, axis):
                own = operand.own_axis(op, axis)
                carried.setdefault(axis, []).append(slims[operand.index].carries(own))
    return carried
