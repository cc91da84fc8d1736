"""Padding by `keras.ops`."""

from __future__ import annotations

import numpy as np

from keras_sbp._keras import numpy_ops
from keras_sbp.handlers._common import at_least_one
from keras_sbp.handlers.ops._shared import UNUSUAL_ARGUMENTS, anew
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.program import Op, Tensor
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, constants, only, tidy


@register_handler(numpy_ops.Pad)
class Pad(LayerHandler):
    """Units pass, with constants that equal the padding, and with scales where that is 0; padding
    that nobody needs goes. In modes other than "constant" every unit of a padded axis is needed.
    Opaque when it pads the batch.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses the batch axis, and padding that is computed."""
        value = op.kwargs.get("constant_values")
        if len(op.args) != 1 or not isinstance(op.args[0], Tensor) or len(op.inputs) > 1:
            return UNUSUAL_ARGUMENTS
        if not (value is None or isinstance(value, int | float)):
            return UNUSUAL_ARGUMENTS
        if set(op.kwargs) - {"constant_values"}:
            return UNUSUAL_ARGUMENTS
        if op.operation.mode not in _MODES:
            return f"padding by '{op.operation.mode}'"
        return "it moves or changes the batch axis" if any(_widths(op)[0]) else None

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """A unit stays constant while it is not padded with another number."""
        known: Known = {}
        for axis, size in enumerate(op.inputs[0].shape):
            if axis == 0 or size is None:
                continue
            constant, (before, after) = constants(inputs[0], axis, size), _widths(op)[axis]
            others = [any(w) for a, w in enumerate(_widths(op)) if a != axis]
            if _is_filled(op):
                if any(others):
                    constant = np.where(constant == _value(op), constant, np.nan)
                constant = np.pad(constant, (before, after), constant_values=_value(op))
            elif before or after:
                continue
            known[axis] = constant
        return [tidy(known)]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """What lies between the padding."""
        needs: Needs = {}
        for axis, keep in only(needed).items():
            before, after = _widths(op)[axis]
            if _is_filled(op):
                needs[axis] = at_least_one(keep[before : keep.size - after])
            elif not before and not after:
                needs[axis] = keep
        return [needs]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """As much padding as is needed."""
        wanted = only(needed)
        passing = {a for a in range(1, op.inputs[0].rank) if self._passes_scales(op, a)}
        slim = build.settle(only(inputs), passing)
        widths, carried, scale = [], {}, {}
        for axis, (size, (before, after)) in enumerate(
            zip(op.inputs[0].shape, _widths(op), strict=True)
        ):
            if _is_filled(op) and axis in wanted and (before or after):
                keep = wanted[axis]
                first, last = keep[:before], keep[keep.size - after :]
            else:
                first, last = np.ones(before, bool), np.ones(after, bool)
            widths.append((int(first.sum()), int(last.sum())))
            if size is not None and (axis in slim.carried or not (first.all() and last.all())):
                carried[axis] = np.concatenate([first, slim.carries(axis), last])
            if axis in slim.scale:
                scale[axis] = np.pad(slim.scale[axis], (before, after), constant_values=1.0)
        tensor = slim.tensor
        if any(any(width) for width in widths):
            pad = anew(op, build, pad_width=tuple(widths))
            tensor = pad(tensor, constant_values=op.kwargs.get("constant_values"))
        return [build.slim(op.outputs[0], tensor, carried=carried, scale=scale)]

    def _passes_scales(self, op: Op, axis: int) -> bool:
        if _is_filled(op):
            return _value(op) == 0
        return not any(_widths(op)[axis])


# Those that pad a constant unit with its constant, and "constant".
_MODES = {"circular", "constant", "edge", "reflect", "symmetric", "wrap"}


def _widths(op: Op) -> list[tuple[int, int]]:
    """How much is put before and after, by axis."""
    widths = [(int(before), int(after)) for before, after in op.operation.pad_width]
    return widths * op.inputs[0].rank if len(widths) == 1 else widths


def _value(op: Op) -> float:
    return op.kwargs.get("constant_values") or 0.0


def _is_filled(op: Op) -> bool:
    return op.operation.mode == "constant"
