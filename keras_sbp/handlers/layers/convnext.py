"""The layers that keras.applications defines for ConvNeXt."""

from __future__ import annotations

import numpy as np

from keras_sbp import _keras
from keras_sbp.handlers._common import numpy_weight, rescaling
from keras_sbp.handlers.layers.activation import MultiplicativeNoise
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.program import Op
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, constants, only, tidy


@register_handler(_keras.StochasticDepth)
class StochasticDepth(MultiplicativeNoise):
    """The identity at inference: units, constants and scales pass."""


@register_handler(_keras.LayerScale)
class LayerScale(LayerHandler):
    """Its weights are pruned with the channels. Units pass, and constants along the last axis; a
    channel whose weight is 0 becomes 0. Opaque when it repeats channels.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses to broadcast."""
        if op.inputs[0].shape[-1] == op.operation.projection_dim:
            return None
        return "it repeats channels"

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """Constants are multiplied; along other axes only 0 stays one number."""
        axis, gamma = op.inputs[0].rank - 1, _gamma(op)
        known = {a: np.where(c == 0, 0.0, np.nan) for a, c in inputs[0].items() if a != axis}
        constant = constants(inputs[0], axis, gamma.size)
        return [tidy(known | {axis: np.where(gamma == 0, 0.0, constant * gamma)})]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Each unit needs itself; several calls share only the channel axis."""
        wanted = only(needed)
        if op.shared:
            return [{a: keep for a, keep in wanted.items() if a == op.inputs[0].rank - 1}]
        return [wanted]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The weights of the carried channels; pending scales go into them, or pass."""
        given = only(inputs)
        axis = op.inputs[0].rank - 1
        slim = build.settle(given) if op.shared else given
        carried = slim.carries(axis)
        weights = {"gamma": (_gamma(op) * slim.scale_on(axis))[carried]}
        layer, tensor = build.call(op, slim.tensor, weights, projection_dim=int(carried.sum()))
        rescale = rescaling(layer, {"gamma": 0}, carried)
        others = {a: function for a, function in slim.rescale.items() if a != axis}
        return [
            build.slim(
                op.outputs[0],
                tensor,
                carried=slim.carried,
                scale={a: scale for a, scale in slim.scale.items() if a != axis},
                rescale=others if op.shared else others | {axis: rescale},
            )
        ]


def _gamma(op: Op) -> np.ndarray:
    return numpy_weight(op.operation.gamma).astype(np.float64)
