"""PReLU: a leaky ReLU whose slopes are weights."""

from __future__ import annotations

import numpy as np
from keras import layers

from keras_sbp.graph.builder import Builder
from keras_sbp.graph.handler import LayerHandler, register_handler
from keras_sbp.graph.handlers.common import constant_slices, numpy_weight
from keras_sbp.graph.slim import Slim
from keras_sbp.graph.trace import Op
from keras_sbp.graph.units import Known, Needs, tidy


@register_handler(layers.PReLU)
class PReLU(LayerHandler):
    """Its slopes are pruned with the units. Units and scales pass; a negative constant does where
    all slopes of the unit are equal.
    """

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """Below 0, a constant stays one where it meets one slope only."""
        alpha = numpy_weight(op.operation.alpha)[None].astype(np.float64)
        return [
            tidy(
                {
                    a: np.where(c >= 0, c, c * constant_slices(alpha, a))
                    for a, c in inputs[0].items()
                }
            )
        ]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Each unit needs itself; several calls share only the axes that the slopes have."""
        if op.shared:
            return [{a: keep for a, keep in needed[0].items() if a in _own_axes(op)}]
        return [needed[0]]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The slopes of the carried units; scales pass, since f(s·x) = s·f(x) for s ≥ 0."""
        slim = inputs[0]
        alpha = numpy_weight(op.operation.alpha)
        for axis in _own_axes(op):
            alpha = np.compress(slim.carries(axis), alpha, axis - 1)
        _, tensor = build.call(op, slim.tensor, {"alpha": alpha})
        return [
            build.slim(
                op.outputs[0],
                tensor,
                carried=slim.carried,
                scale=slim.scale,
                rescale=slim.rescale,
            )
        ]


def _own_axes(op: Op) -> list[int]:
    """The axes along which the slopes differ."""
    return [axis for axis, n in enumerate(op.operation.alpha.shape, start=1) if n > 1]
