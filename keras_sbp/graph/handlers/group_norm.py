"""GroupNormalization: channels are measured against the others of their group."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from keras_sbp.graph.builder import Builder
from keras_sbp.graph.handler import LayerHandler, register_handler
from keras_sbp.graph.handlers.common import numpy_weight, rescaling
from keras_sbp.graph.slim import Slim
from keras_sbp.graph.trace import Op
from keras_sbp.graph.units import Known, Needs, constants, tidy


@register_handler(layers.GroupNormalization)
class GroupNormalization(LayerHandler):
    """Whole groups are pruned, so single channels where every channel is a group; all positions
    are needed. A group that is exactly 0, and a channel whose gamma is 0, become the constant
    beta.
    """

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """A group of zeros becomes beta, and so does a channel whose gamma is 0."""
        axis = _axis(op)
        zero = constants(inputs[0], axis, op.inputs[0].shape[axis]) == 0
        is_beta = np.repeat(_by_group(op, zero).all(1), _group_size(op))
        if any((constant == 0).all() for constant in inputs[0].values()):
            is_beta[:] = True
        weights = {name: numpy_weight(w).astype(float) for name, w in _weights(op.operation)}
        is_beta |= weights.get("gamma", np.ones(is_beta.size)) == 0
        beta = weights.get("beta", np.zeros(is_beta.size))
        return [tidy({axis: np.where(is_beta, beta, np.nan)})]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """The groups of needed channels, at all positions."""
        axis = _axis(op)
        if axis not in needed[0]:
            return [{}]
        return [{axis: np.repeat(_by_group(op, needed[0][axis]).any(1), _group_size(op))}]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """Fewer groups of the same size."""
        axis, size = _axis(op), _group_size(op)
        slim = build.settle(inputs[0])
        # More may be carried than was asked for, but only whole groups are of use.
        groups = _by_group(op, slim.carries(axis)).all(1)
        carried = np.repeat(groups, size)
        slim = build.take(slim, axis, carried)
        weights = {name: numpy_weight(w)[carried] for name, w in _weights(op.operation)}
        layer, tensor = build.call(op, slim.tensor, weights, groups=int(groups.sum()))
        rescale = {axis: rescaling(layer, {"gamma": 0, "beta": 0}, carried)}
        if op.shared or layer.gamma is None:
            rescale = {}
        return [build.slim(op.outputs[0], tensor, carried={axis: carried}, rescale=rescale)]


def _axis(op: Op) -> int:
    return op.operation.axis % op.inputs[0].rank


def _group_size(op: Op) -> int:
    return op.inputs[0].shape[_axis(op)] // op.operation.groups


def _by_group(op: Op, channels: np.ndarray) -> np.ndarray:
    return channels.reshape(op.operation.groups, -1)


def _weights(layer: keras.layers.GroupNormalization) -> list[tuple[str, keras.Variable]]:
    named = [("gamma", layer.gamma), ("beta", layer.beta)]
    return [(name, weight) for name, weight in named if weight is not None]
