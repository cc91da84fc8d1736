"""Operations of `keras.ops` that move, add, drop, merge and split axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_sbp._keras import numpy_ops
from keras_sbp.handlers.layers.reshaping import Block, Regroup, match_last_axes, without_ones
from keras_sbp.handlers.ops._shared import UNUSUAL_ARGUMENTS, anew, axes_of, reads_one_tensor
from keras_sbp.handlers.ops.rearrange import Rearrange, View
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import register_handler
from keras_sbp.program.program import Op
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Needs

_MOVES: dict[type, Callable[[Any, np.ndarray], np.ndarray]] = {
    numpy_ops.Moveaxis: lambda op, x: np.moveaxis(x, op.source, op.destination),
    numpy_ops.Swapaxes: lambda op, x: np.swapaxes(x, op.axis1, op.axis2),
    numpy_ops.Transpose: lambda op, x: np.transpose(x, op.axes),
}


@register_handler(*_MOVES)
class Move(Rearrange):
    """Units, constants and scales pass, each along the axis that it moves to. Opaque when the batch
    axis moves.
    """

    def views(self, op: Op) -> list[View]:
        """Found by moving axes that are told apart by their sizes."""
        move = next(move for cls, move in _MOVES.items() if isinstance(op.operation, cls))
        moved = move(op.operation, np.empty(range(1, op.inputs[0].rank + 1)))
        return [View(tuple(size - 1 for size in moved.shape))]

    def call(self, op: Op, slim: Slim, build: Builder) -> list[keras.KerasTensor | None]:
        """The same operation."""
        return [anew(op, build)(slim.tensor)]


@register_handler(numpy_ops.ExpandDims)
class ExpandDims(Rearrange):
    """Units, constants and scales pass."""

    def views(self, op: Op) -> list[View]:
        """Axes of size 1 between the others."""
        new = _new_axes(op)
        old = iter(range(op.inputs[0].rank))
        return [View(tuple(None if a in new else next(old) for a in range(op.outputs[0].rank)))]

    def call(self, op: Op, slim: Slim, build: Builder) -> list[keras.KerasTensor | None]:
        """The same operation."""
        return [anew(op, build)(slim.tensor)]


@register_handler(numpy_ops.Squeeze)
class Squeeze(Rearrange):
    """Units, constants and scales pass."""

    def views(self, op: Op) -> list[View]:
        """The axes that are left."""
        gone = self._gone(op)
        left = tuple(axis for axis in range(op.inputs[0].rank) if axis not in gone)
        return [View(left, fixed=dict.fromkeys(gone, 0))]

    def call(self, op: Op, slim: Slim, build: Builder) -> list[keras.KerasTensor | None]:
        """The axes are named, since others may have got the size 1."""
        return [anew(op, build, axis=self._gone(op))(slim.tensor)]

    def _gone(self, op: Op) -> tuple[int, ...]:
        if op.operation.axis is not None:
            return axes_of(op, op.operation.axis)
        return tuple(axis for axis, size in enumerate(op.inputs[0].shape) if size == 1)


def _new_axes(op: Op) -> set[int]:
    axis = op.operation.axis
    axes = axis if isinstance(axis, list | tuple) else [axis]
    return {each % op.outputs[0].rank for each in axes}


@register_handler(numpy_ops.Reshape)
class Reshape(Regroup):
    """Units pass through axes that merge, split or only move, and through the last axes where
    axes before them merge with the batch. The new shape shrinks.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses shapes that are computed, and shapes whose axes cannot be matched."""
        if not reads_one_tensor(op):
            return UNUSUAL_ARGUMENTS
        shape = op.operation.newshape
        is_tuple = isinstance(shape, list | tuple)
        if not is_tuple or not all(isinstance(size, int | np.integer) for size in shape):
            return "its shape is computed"
        return super().refuses(op)

    def blocks(self, op: Op) -> list[Block] | None:
        """What can be matched from the last axis on; nothing says that the batch stays."""
        before, after = op.inputs[0].shape, op.outputs[0].shape
        blocks = match_last_axes(before, after)
        return blocks and [without_ones(block, before, after) for block in blocks]

    def call(self, op: Op, slim: Slim, carried: Needs, build: Builder) -> keras.KerasTensor:
        """The same shape but for what is carried."""
        shape = [
            int(carried[axis].sum()) if axis in carried else size
            for axis, size in enumerate(op.operation.newshape)
        ]
        return anew(op, build, newshape=tuple(shape))(slim.tensor)
