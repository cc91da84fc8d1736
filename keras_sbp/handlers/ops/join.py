"""Operations of `keras.ops` that put tensors side by side."""

from __future__ import annotations

import keras
import numpy as np

from keras_sbp._keras import numpy_ops
from keras_sbp.handlers._common import at_least_one
from keras_sbp.handlers.layers import concatenate
from keras_sbp.handlers.layers.concatenate import agree
from keras_sbp.handlers.ops._shared import UNUSUAL_ARGUMENTS, anew
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.program import Op, Tensor
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, kept, only, tidy, wholly_constant


@register_handler(numpy_ops.Concatenate)
class Concatenate(concatenate.Concatenate):
    """Units, constants and scales pass, side by side; a tensor without any needed unit vanishes.
    Opaque when a constant is among the tensors, along the batch or an axis of unknown size.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses what is no list of tensors."""
        return super().refuses(op) if _joins_tensors(op) else UNUSUAL_ARGUMENTS

    def call(self, op: Op, tensors: list[keras.KerasTensor], build: Builder) -> keras.KerasTensor:
        """The same operation."""
        return anew(op, build)(tensors)


@register_handler(numpy_ops.Stack)
class Stack(LayerHandler):
    """Units pass where all tensors agree; a tensor that nobody needs vanishes. Opaque when a
    constant is among the tensors, or the new axis comes first.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses what is no list of tensors, a new batch axis, and shapes that may differ."""
        if not _joins_tensors(op):
            return UNUSUAL_ARGUMENTS
        if self._axis(op) == 0:
            return "it moves or changes the batch axis"
        if len({tensor.shape[1:] for tensor in op.inputs}) > 1:
            return "one of its sizes is known of one operand only"
        return None

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """What all agree on; along the new axis, which ones hold one number only."""
        known = {self._axis(op): np.array([_only_number(each) for each in inputs])}
        for axis in set.intersection(*(set(each) for each in inputs)):
            rows = np.stack([each[axis] for each in inputs])
            known[self._after(op, axis)] = np.where((rows == rows[0]).all(0), rows[0], np.nan)
        return [tidy(known)]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """The tensors that are needed, each with the units that are."""
        wanted = only(needed)
        keep = at_least_one(kept(wanted, self._axis(op), len(op.inputs)))
        own = {
            axis: wanted[self._after(op, axis)]
            for axis in range(1, op.inputs[0].rank)
            if self._after(op, axis) in wanted
        }
        return [own if each else None for each in keep]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The tensors that are left."""
        slims = {i: build.settle(slim) for i, slim in enumerate(inputs) if slim is not None}
        carried = {
            self._after(op, axis): keep for axis, keep in agree(op, slims, build, None).items()
        }
        carried[self._axis(op)] = np.array([slim is not None for slim in inputs])
        tensor = anew(op, build)([slim.tensor for slim in slims.values()])
        return [build.slim(op.outputs[0], tensor, carried=carried)]

    def _axis(self, op: Op) -> int:
        return op.operation.axis % op.outputs[0].rank

    def _after(self, op: Op, axis: int) -> int:
        return axis + (axis >= self._axis(op))


def _joins_tensors(op: Op) -> bool:
    if len(op.args) != 1 or op.kwargs or not isinstance(op.args[0], list | tuple):
        return False
    return all(isinstance(each, Tensor) for each in op.args[0])


def _only_number(known: Known) -> float:
    """The number that a tensor holds everywhere, NaN where there are several or none is known."""
    axis = wholly_constant(known)
    if axis is None or (known[axis] != known[axis][0]).any():
        return np.nan
    return float(known[axis][0])
