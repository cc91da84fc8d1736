"""The Softmax layer."""

from __future__ import annotations

import math

import numpy as np
from keras import layers

from keras_sbp.graph.builder import Builder
from keras_sbp.graph.handler import LayerHandler, register_handler
from keras_sbp.graph.slim import Slim
from keras_sbp.graph.trace import Op
from keras_sbp.graph.units import Known, Needs, tidy


@register_handler(layers.Softmax)
class Softmax(LayerHandler):
    """Along its axes every unit is needed; units along other axes pass. Opaque when its axes
    include the batch, or its mask has other axes than its input.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses masks that broadcast in other ways, and the batch axis."""
        scores, *masks = op.inputs
        for mask in masks:
            sizes = zip(mask.shape[1:], scores.shape[1:], strict=False)
            if mask.rank != scores.rank or any(m not in (1, n) for m, n in sizes):
                return "its mask has other axes than its input"
        return "its axes include the batch" if 0 in _axes(op) else None

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """Equal logits are equally likely, where none is masked."""
        sizes = [op.inputs[0].shape[axis] for axis in _axes(op)]
        if None in sizes or len(op.inputs) > 1:
            return [{}]
        others = {axis: c for axis, c in inputs[0].items() if axis not in _axes(op)}
        share = 1 / math.prod(sizes)
        return [tidy({axis: np.where(np.isnan(c), c, share) for axis, c in others.items()})]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Everything along its axes; what is needed of the output along others."""
        others = {axis: keep for axis, keep in needed[0].items() if axis not in _axes(op)}
        return [
            {axis: keep for axis, keep in others.items() if tensor.shape[axis] == keep.size}
            for tensor in op.inputs
        ]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same layer; a mask carries the units that the input carries."""
        slims = [build.settle(slim) for slim in inputs]
        if len(slims) > 1:
            slims = [build.align(op, i, slim) for i, slim in enumerate(slims)]
        tensor = build.layer(op)(*(slim.tensor for slim in slims))
        return [build.slim(op.outputs[0], tensor, carried=slims[0].carried)]


def _axes(op: Op) -> list[int]:
    axis = op.operation.axis
    axes = axis if isinstance(axis, list | tuple) else [axis]
    return [each % op.inputs[0].rank for each in axes]
