"""The Softmax layer."""

from __future__ import annotations

import math

import numpy as np
from keras import layers

from keras_sbp.graph.builder import Builder
from keras_sbp.graph.handler import LayerHandler, handles
from keras_sbp.graph.slim import Slim
from keras_sbp.graph.trace import Op
from keras_sbp.graph.units import Known, Needs, tidy


@handles(layers.Softmax)
class Softmax(LayerHandler):
    """Along its axes every unit is needed; units along other axes pass. Opaque when it is called
    with a mask, or its axes include the batch.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses masks and the batch axis."""
        if len(op.inputs) > 1:
            return "it is called with a mask"
        return "its axes include the batch" if 0 in _axes(op) else None

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """Equal logits are equally likely."""
        sizes = [op.inputs[0].shape[axis] for axis in _axes(op)]
        if None in sizes:
            return [{}]
        others = {axis: c for axis, c in inputs[0].items() if axis not in _axes(op)}
        share = 1 / math.prod(sizes)
        return [tidy({axis: np.where(np.isnan(c), c, share) for axis, c in others.items()})]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Everything along its axes; what is needed of the output along others."""
        return [{axis: keep for axis, keep in needed[0].items() if axis not in _axes(op)}]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same layer."""
        slim = build.settle(inputs[0])
        return [build.slim(op.outputs[0], build.layer(op)(slim.tensor), carried=slim.carried)]


def _axes(op: Op) -> list[int]:
    axis = op.operation.axis
    axes = axis if isinstance(axis, list | tuple) else [axis]
    return [each % op.inputs[0].rank for each in axes]
