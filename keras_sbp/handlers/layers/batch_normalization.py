"""BatchNormalization: an affine function of each channel, with weights."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from keras_sbp.handlers._common import CALLED_WITH_A_MASK, numpy_weight, rescaling
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.program import Op
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, constants, only, tidy


@register_handler(layers.BatchNormalization)
class BatchNormalization(LayerHandler):
    """Channels are pruned, with their four vectors. Units and constants pass. Opaque when it is
    called with a mask.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses masks, which are further inputs."""
        return CALLED_WITH_A_MASK if len(op.inputs) > 1 else None

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """A constant stays constant, and so does a channel whose gamma is 0."""
        axis = _axis(op)
        slope, offset = _slope_and_offset(op)
        constant = constants(inputs[0], axis, slope.size)
        constant = np.where(slope == 0, 0.0, constant)
        return [tidy({axis: slope * constant + offset})]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Each unit needs itself; several calls share only the channel axis."""
        wanted = only(needed)
        if op.shared:
            return [{a: keep for a, keep in wanted.items() if a == _axis(op)}]
        return [wanted]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The carried channels; a pending scale s > 0 turns gamma to gamma·s and mean to mean/s."""
        given = only(inputs)
        axis, old = _axis(op), op.operation
        scale = given.scale_on(axis)[given.carries(axis)]
        absorbs = old.scale and not op.shared and (scale > 0).all()
        slim = build.settle(given, {axis} if absorbs else ())
        carried = slim.carries(axis)
        weights = {name: numpy_weight(weight)[carried] for name, weight in _weights(old).items()}
        if absorbs:
            weights["gamma"] = weights["gamma"] * scale
            weights["moving_mean"] = weights["moving_mean"] / scale
        layer, tensor = build.call(op, slim.tensor, weights)
        can_rescale = layer.scale and layer.center and not op.shared
        rescale = {axis: rescaling(layer, {"gamma": 0, "beta": 0}, carried)} if can_rescale else {}
        return [build.slim(op.outputs[0], tensor, carried=slim.carried, rescale=rescale)]

    def normalization_scale(self, op: Op) -> np.ndarray | None:
        """Gamma, where there is one."""
        layer = op.operation
        return numpy_weight(layer.gamma).astype(np.float64) if layer.scale else None


def _axis(op: Op) -> int:
    axis = op.operation.axis
    return axis % op.inputs[0].rank


def _weights(layer: keras.layers.BatchNormalization) -> dict[str, keras.Variable]:
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    return {name: getattr(layer, name) for name in names if getattr(layer, name) is not None}


def _slope_and_offset(op: Op) -> tuple[np.ndarray, np.ndarray]:
    layer = op.operation
    weights = {name: numpy_weight(w).astype(np.float64) for name, w in _weights(layer).items()}
    slope = weights.get("gamma", 1.0) / np.sqrt(weights["moving_variance"] + layer.epsilon)
    return slope, weights.get("beta", 0.0) - slope * weights["moving_mean"]
