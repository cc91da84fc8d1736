"""Constants: numbers that are in the network because something is added to them or beside them."""

from __future__ import annotations

import numpy as np

from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.program import Constant, Op
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, only, tidy


@register_handler(Constant)
class ConstantTensor(LayerHandler):
    """Units that are the same number everywhere go into the weights of the readers."""

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """All that the numbers say."""
        value = op.operation.value.astype(np.float64)
        known = {}
        for axis in range(value.ndim):
            rows = np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1)
            known[axis + 1] = np.where((rows == rows[:, :1]).all(1), rows[:, 0], np.nan)
        return [tidy(known)]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """There are no inputs."""
        return []

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The needed numbers as the weights of a layer."""
        wanted = only(needed)
        value = op.operation.value
        for axis, keep in wanted.items():
            value = np.compress(keep, value, axis - 1)
        return [build.slim(op.outputs[0], build.constant(op, value), carried=dict(wanted))]
