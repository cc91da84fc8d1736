"""Operations of `keras.ops` that select positions along axes: slices, take, flip, roll."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_sbp._keras import numpy_ops
from keras_sbp.handlers.ops._shared import UNUSUAL_ARGUMENTS, anew, axes_of
from keras_sbp.handlers.ops.rearrange import Rearrange, View
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import register_handler
from keras_sbp.program.program import Op, Tensor
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, only

_ALL = slice(None)


@register_handler(numpy_ops.GetItem)
class GetItem(Rearrange):
    """Slices, positions, `None` and `...` are followed: what they leave out goes. Opaque when they
    select from the batch.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses everything else as a key."""
        if len(op.args) != 2 or not isinstance(op.args[0], Tensor) or op.kwargs:
            return UNUSUAL_ARGUMENTS
        key = op.args[1]
        parts = key if isinstance(key, list | tuple) else [key]
        if not all(_is_simple(part) for part in parts):
            return "its key has other parts than slices and positions"
        if _parts(op)[:1] != [(0, _ALL)]:
            return "it moves or changes the batch axis"
        return self.refuses_views(op)

    def views(self, op: Op) -> list[View]:
        """One pick for each slice; of unknown sizes nothing can be said."""
        axes: list[int | None] = []
        picks: dict[int, np.ndarray] = {}
        fixed: dict[int, int] = {}
        for axis, part in _parts(op):
            if axis is None or isinstance(part, slice):
                axes.append(axis)
            if axis is None:
                continue
            size = op.inputs[0].shape[axis]
            if isinstance(part, slice) and part != _ALL and size is not None:
                picks[axis] = np.arange(size)[part]
            elif isinstance(part, int):
                fixed[axis] = part if size is None else part % size
        return [View(tuple(axes), picks, fixed)]

    def narrow(self, op: Op, slim: Slim, build: Builder) -> Slim:
        """Makes the selected units lie in equal steps."""
        view = self.views(op)[0]
        for axis, pick in view.picks.items():
            if _as_slice(_new_positions(slim, axis, pick)) is None:
                keep = np.zeros_like(slim.carries(axis))
                keep[pick] = True
                slim = build.take(slim, axis, keep & slim.carries(axis))
        return slim

    def call(self, op: Op, slim: Slim, build: Builder) -> list[keras.KerasTensor | None]:
        """The same key, in terms of what is carried."""
        view, key = self.views(op)[0], []
        for axis, part in _parts(op):
            if axis in view.picks and axis in slim.carried:
                part = _as_slice(_new_positions(slim, axis, view.picks[axis]))
                part = _ALL if part == slice(0, int(slim.carries(axis).sum())) else part
            elif axis in view.fixed and axis in slim.carried:
                part = int(slim.carries(axis)[: view.fixed[axis]].sum())
            key.append(part)
        if all(part == _ALL for part in key):
            return [slim.tensor]
        return [anew(op, build)(slim.tensor, tuple(key))]


def _is_simple(part: Any) -> bool:
    if isinstance(part, slice):
        return all(n is None or isinstance(n, int) for n in (part.start, part.stop, part.step))
    is_position = isinstance(part, int) and not isinstance(part, bool)
    return part is None or part is Ellipsis or is_position


def _parts(op: Op) -> list[tuple[int | None, Any]]:
    """Returns the parts of the key with their axes, without an ellipsis."""
    key = op.args[1]
    parts = list(key) if isinstance(key, list | tuple) else [key]
    if Ellipsis not in parts:
        parts.append(Ellipsis)
    rest = op.inputs[0].rank - sum(part is not None and part is not Ellipsis for part in parts)
    at = parts.index(Ellipsis)
    parts[at : at + 1] = [_ALL] * rest
    axes = iter(range(op.inputs[0].rank))
    return [(None if part is None else next(axes), part) for part in parts]


def _new_positions(slim: Slim, axis: int, pick: np.ndarray) -> np.ndarray:
    """Returns where those of the picked units that are carried are among all carried ones."""
    carried = slim.carries(axis)
    return (np.cumsum(carried) - 1)[pick[carried[pick]]]


def _as_slice(positions: np.ndarray) -> slice | None:
    """Returns the slice that takes these positions, or None where there is none."""
    first, last = int(positions[0]), int(positions[-1])
    if len(positions) == 1:
        return slice(first, first + 1)
    step = int(positions[1]) - first
    if step == 0 or (np.diff(positions) != step).any():
        return None
    stop = last + (1 if step > 0 else -1)
    return slice(first, stop if stop >= 0 else None, step if step != 1 else None)


@register_handler(numpy_ops.Take)
class Take(Rearrange):
    """With constant positions along one axis: units that are not taken go. Opaque when the
    positions are computed, select from the batch or have several axes.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses the flattened input, and positions that are not there."""
        if len(op.args) != 2 or not isinstance(op.args[0], Tensor) or op.kwargs:
            return UNUSUAL_ARGUMENTS
        if len(op.inputs) > 1 or isinstance(op.args[1], keras.Variable):
            return "its positions are computed"
        positions = keras.ops.convert_to_numpy(op.args[1])
        if op.operation.axis is None or positions.ndim > 1 or positions.dtype.kind not in "iu":
            return "its positions do not follow one axis"
        size = op.inputs[0].shape[self._axis(op)]
        if size is not None and not ((positions >= -size) & (positions < size)).all():
            return "a position is not there"
        return self.refuses_views(op)

    def views(self, op: Op) -> list[View]:
        """One pick, or one fixed position."""
        axis = self._axis(op)
        positions, size = keras.ops.convert_to_numpy(op.args[1]), op.inputs[0].shape[axis]
        axes: list[int | None] = list(range(op.inputs[0].rank))
        if size is not None:
            positions = positions % size
        if positions.ndim == 0:
            del axes[axis]
            return [View(tuple(axes), fixed={axis: int(positions)})]
        if size is None:
            axes[axis] = None
            return [View(tuple(axes))]
        return [View(tuple(axes), {axis: positions})]

    def call(self, op: Op, slim: Slim, build: Builder) -> list[keras.KerasTensor | None]:
        """The same positions among what is carried; no operation where that is everything."""
        axis, view = self._axis(op), self.views(op)[0]
        positions = op.args[1]
        if axis in view.fixed and axis in slim.carried:
            positions = int(slim.carries(axis)[: view.fixed[axis]].sum())
        elif axis in view.picks and axis in slim.carried:
            positions = _new_positions(slim, axis, view.picks[axis]).astype("int32")
            if np.array_equal(positions, np.arange(slim.carries(axis).sum())):
                return [slim.tensor]
        return [anew(op, build)(slim.tensor, positions)]

    def _axis(self, op: Op) -> int:
        return op.operation.axis % op.inputs[0].rank


@register_handler(numpy_ops.Flip)
class Flip(Rearrange):
    """Units, constants and scales pass. Opaque when it reverses the batch."""

    def views(self, op: Op) -> list[View]:
        """The positions from the last to the first."""
        shape = op.inputs[0].shape
        axes = [axis for axis in axes_of(op, op.operation.axis) if shape[axis] is not None]
        picks = {axis: np.arange(op.inputs[0].size(axis))[::-1] for axis in axes}
        return [View(tuple(range(len(shape))), picks)]

    def refuses(self, op: Op) -> str | None:
        """Refuses the batch axis, also of unknown size."""
        if 0 in axes_of(op, op.operation.axis):
            return "it moves or changes the batch axis"
        return super().refuses(op)

    def call(self, op: Op, slim: Slim, build: Builder) -> list[keras.KerasTensor | None]:
        """The same operation."""
        return [anew(op, build)(slim.tensor)]


@register_handler(numpy_ops.Roll)
class Roll(Flip):
    """Units along other axes pass, with constants and scales; along its own every unit is needed.
    Opaque when it rolls the batch.
    """

    def views(self, op: Op) -> list[View]:
        """The positions, rolled."""
        picks: dict[int, np.ndarray] = {}
        axes, shifts = axes_of(op, op.operation.axis), op.operation.shift
        shifts = shifts if isinstance(shifts, list | tuple) else [shifts] * len(axes)
        for axis, shift in zip(axes, shifts, strict=True):
            size = op.inputs[0].shape[axis]
            if size is not None:
                picks[axis] = np.roll(picks.get(axis, np.arange(size)), shift)
        return [View(tuple(range(op.inputs[0].rank)), picks)]

    def refuses(self, op: Op) -> str | None:
        """Refuses several shifts along one axis."""
        shift, axis = op.operation.shift, op.operation.axis
        if isinstance(shift, list | tuple) and len(shift) != len(axes_of(op, axis)):
            return "its shifts do not follow its axes"
        return super().refuses(op)

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Everything along its axes, since the shift counts the units."""
        needs, rolled = only(super().needs(op, needed, inputs)), axes_of(op, op.operation.axis)
        return [{axis: keep for axis, keep in needs.items() if axis not in rolled}]
