"""Operations of `keras.ops` that cut a tensor into several, and that repeat it."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from keras_sbp._keras import core_ops, numpy_ops
from keras_sbp.handlers.ops._shared import anew
from keras_sbp.handlers.ops.rearrange import Rearrange, View
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import register_handler
from keras_sbp.program.program import Op
from keras_sbp.program.slim import Slim


@register_handler(numpy_ops.ArraySplit, numpy_ops.Split)
class Split(Rearrange):
    """Each unit goes to its piece, with constants and scales; a piece that nobody needs vanishes.
    Opaque when it cuts the batch, or an axis of unknown size.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses an unknown size along its axis."""
        if op.inputs[0].shape[_axis(op)] is None:
            return "the size along its axis is unknown"
        return super().refuses(op)

    def views(self, op: Op) -> list[View]:
        """Pieces of the axis, one behind the other."""
        axis, axes = _axis(op), tuple(range(op.inputs[0].rank))
        ends = np.cumsum([tensor.shape[axis] for tensor in op.outputs])
        return [
            View(axes, {axis: np.arange(end - tensor.shape[axis], end)})
            for tensor, end in zip(op.outputs, ends, strict=True)
        ]

    def call(self, op: Op, slim: Slim, build: Builder) -> list[keras.KerasTensor | None]:
        """Cuts what is carried between the pieces of which something is carried."""
        axis = _axis(op)
        carried = slim.carries(axis)
        counts = [int(carried[view.picks[axis]].sum()) for view in self.views(op)]
        ends = np.cumsum([count for count in counts if count])[:-1].tolist()
        if not ends:
            pieces: Sequence[keras.KerasTensor] = [slim.tensor]
        elif carried.all():
            pieces = anew(op, build)(slim.tensor)
        else:
            split = numpy_ops.Split(ends, axis=axis, name=build.name(op.name))
            pieces = split(slim.tensor)
        left = iter(pieces)
        return [next(left) if count else None for count in counts]


@register_handler(core_ops.Unstack)
class Unstack(Rearrange):
    """Each unit becomes a tensor, which vanishes where nobody needs it. Opaque along the batch, or
    an axis of unknown size.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses an unknown size along its axis."""
        if op.inputs[0].shape[_axis(op)] is None:
            return "the size along its axis is unknown"
        return super().refuses(op)

    def views(self, op: Op) -> list[View]:
        """One position each."""
        axis = _axis(op)
        left = tuple(a for a in range(op.inputs[0].rank) if a != axis)
        return [View(left, fixed={axis: number}) for number in range(len(op.outputs))]

    def call(self, op: Op, slim: Slim, build: Builder) -> list[keras.KerasTensor | None]:
        """As many tensors as units are carried."""
        carried = slim.carries(_axis(op))
        unstack = anew(op, build, num=int(carried.sum()))
        left = iter(unstack(slim.tensor))
        return [next(left) if unit else None for unit in carried]


@register_handler(numpy_ops.Tile)
class Tile(Rearrange):
    """A unit passes as often as it is repeated. Opaque when it repeats the batch, or adds axes."""

    def refuses(self, op: Op) -> str | None:
        """Refuses further axes and the batch."""
        if op.inputs[0].rank != op.outputs[0].rank:
            return "it adds axes"
        if self._repeats(op)[0] != 1:
            return "it moves or changes the batch axis"
        return super().refuses(op)

    def views(self, op: Op) -> list[View]:
        """The positions, several times over."""
        sizes = zip(op.inputs[0].shape, self._repeats(op), strict=True)
        picks = {
            axis: np.tile(np.arange(size), times)
            for axis, (size, times) in enumerate(sizes)
            if times != 1 and size is not None
        }
        return [View(tuple(range(op.inputs[0].rank)), picks)]

    def call(self, op: Op, slim: Slim, build: Builder) -> list[keras.KerasTensor | None]:
        """The same operation."""
        return [anew(op, build)(slim.tensor)]

    def _repeats(self, op: Op) -> list[int]:
        repeats = op.operation.repeats
        repeats = list(repeats) if isinstance(repeats, list | tuple) else [repeats]
        return [1] * (op.inputs[0].rank - len(repeats)) + repeats


@register_handler(numpy_ops.BroadcastTo)
class BroadcastTo(Rearrange):
    """Units, constants and scales pass along axes that keep their size. Opaque when the batch is
    repeated or axes are added.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses further axes and the batch."""
        before, after = op.inputs[0].shape, op.outputs[0].shape
        if len(before) != len(after) or before[0] != after[0]:
            return "it adds axes, or repeats the batch"
        if any((n is None) != (m is None) for n, m in zip(before, after, strict=True)):
            return "one of its sizes is unknown"
        return super().refuses(op)

    def views(self, op: Op) -> list[View]:
        """The only position, several times over."""
        before, after = op.inputs[0].shape, op.outputs[0].shape
        changed = [axis for axis, size in enumerate(before) if size != after[axis]]
        picks = {axis: np.zeros(op.outputs[0].size(axis), int) for axis in changed}
        return [View(tuple(range(len(before))), picks)]

    def call(self, op: Op, slim: Slim, build: Builder) -> list[keras.KerasTensor | None]:
        """The shape of what is carried."""
        picks = self.views(op)[0].picks
        shape = [
            int(slim.carries(axis).sum()) if axis in slim.carried and axis not in picks else size
            for axis, size in enumerate(op.operation.shape)
        ]
        return [anew(op, build, shape=tuple(shape))(slim.tensor)]


def _axis(op: Op) -> int:
    return op.operation.axis % op.inputs[0].rank
