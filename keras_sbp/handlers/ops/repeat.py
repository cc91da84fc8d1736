"""Repeat: each unit several times, side by side."""

from __future__ import annotations

import keras
import numpy as np

from keras_sbp import _keras
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.program import Op
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, kept, only


@register_handler(_keras.numpy_ops.Repeat)
class Repeat(LayerHandler):
    """A unit goes when none of its copies is needed. Opaque when it flattens, repeats the batch
    axis, or repeats an axis of unknown size.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses repetitions whose units cannot be followed."""
        if len(op.args) != 1 or op.kwargs or not op.inputs:
            return "it is called with further arguments"
        if op.operation.axis is None:
            return "it flattens its input"
        if _axis(op) == 0:
            return "it repeats the batch axis"
        return None if op.inputs[0].shape[_axis(op)] else "its axis has an unknown size"

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """A copy is what its unit is."""
        axis = _axis(op)
        return [{a: c[_owners(op)] if a == axis else c for a, c in inputs[0].items()}]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """A unit is needed while one of its copies is."""
        wanted = only(needed)
        axis = _axis(op)
        needs = {a: keep for a, keep in wanted.items() if a != axis}
        if axis in wanted:
            size = op.inputs[0].size(axis)
            needs[axis] = np.bincount(_owners(op)[wanted[axis]], minlength=size) > 0
        return [needs]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The copies that are needed: a `take`, where units have unequal numbers of them."""
        axis, owners, slim = _axis(op), _owners(op), only(inputs)
        copies = kept(only(needed), axis, op.outputs[0].size(axis))
        places = (np.cumsum(slim.carries(axis)) - 1)[owners[copies]]
        carried = int(slim.carries(axis).sum())
        each = len(places) // carried
        if np.array_equal(places, np.repeat(np.arange(carried), each)):
            tensor = keras.ops.repeat(slim.tensor, each, axis=axis) if each > 1 else slim.tensor
        else:
            tensor = keras.ops.take(slim.tensor, places.astype("int32"), axis=axis)
        scale = {a: s[owners] if a == axis else s for a, s in slim.scale.items()}
        return [
            build.slim(
                op.outputs[0],
                tensor,
                carried=slim.carried | {axis: copies},
                scale=scale,
                rescale={a: r for a, r in slim.rescale.items() if a != axis},
            )
        ]


def _axis(op: Op) -> int:
    return op.operation.axis % op.inputs[0].rank


def _owners(op: Op) -> np.ndarray:
    """The input unit of each output unit."""
    return np.repeat(np.arange(op.inputs[0].size(_axis(op))), op.operation.repeats)
