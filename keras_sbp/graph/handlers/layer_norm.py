"""LayerNormalization: everything along its axes is measured against everything else."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from keras_sbp.graph.builder import Builder
from keras_sbp.graph.handler import LayerHandler, register_handler
from keras_sbp.graph.handlers.common import constant_slices, numpy_weight
from keras_sbp.graph.slim import Rescale, Slim
from keras_sbp.graph.trace import Op
from keras_sbp.graph.units import Known, Needs, tidy


@register_handler(layers.LayerNormalization)
class LayerNormalization(LayerHandler):
    """Along the axes that it normalises every unit is needed, since mean and deviation depend on
    all; a unit whose gamma is 0 becomes the constant beta. Units along other axes pass. Opaque
    when it normalises over the batch.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses the batch axis."""
        return "it normalises over the batch" if 0 in _axes(op) else None

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """What is 0 all along the normalised axes becomes beta; so does what gamma makes 0.

        Other constants become beta too, but their deviation is rounding noise over epsilon.
        """
        gamma = _spread(op, op.operation.gamma, 1.0)
        beta = _spread(op, op.operation.beta, 0.0)
        only_zeros = any((constant == 0).all() for constant in inputs[0].values())
        known: Known = {}
        for axis, size in enumerate(op.outputs[0].shape):
            if axis == 0 or size is None:
                continue
            result = constant_slices(beta, axis)
            if axis in _axes(op):
                is_beta = only_zeros | (constant_slices(gamma, axis) == 0)
            else:
                is_beta = only_zeros | (inputs[0].get(axis, np.full(size, np.nan)) == 0)
            known[axis] = np.broadcast_to(np.where(is_beta, result, np.nan), size)
        return [tidy(known)]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Everything along the normalised axes; what is needed of the output along others."""
        if op.shared:
            return [{}]
        return [{axis: keep for axis, keep in needed[0].items() if axis not in _axes(op)}]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same layer with the same weights."""
        slim = build.settle(inputs[0])
        weights = {"gamma": op.operation.gamma, "beta": op.operation.beta}
        weights = {name: numpy_weight(w) for name, w in weights.items() if w is not None}
        layer, tensor = build.call(op, slim.tensor, weights)
        rescale = {} if op.shared or layer.gamma is None else _rescale(op, layer)
        return [build.slim(op.outputs[0], tensor, carried=slim.carried, rescale=rescale)]

    def unit_axes(self, op: Op) -> list[int]:
        """None: its weights weigh units that others make."""
        return []


def _axes(op: Op) -> list[int]:
    return [axis % op.inputs[0].rank for axis in op.operation.axis]


def _spread(op: Op, weight: keras.Variable | None, default: float) -> np.ndarray:
    """A weight with the rank of the input, as Keras broadcasts it. float64."""
    shape = [1] * op.inputs[0].rank
    for axis in _axes(op):
        shape[axis] = op.inputs[0].shape[axis]
    if weight is None:
        return np.full(shape, default)
    return numpy_weight(weight).astype(np.float64).reshape(shape)


def _rescale(op: Op, layer: keras.layers.LayerNormalization) -> dict[int, Rescale]:
    def along(axis: int) -> Rescale:
        def rescale(factor: np.ndarray) -> None:
            shape = [1] * op.inputs[0].rank
            shape[axis] = -1
            for weight in (layer.gamma, layer.beta):
                if weight is not None:
                    product = _spread(op, weight, 1.0) * factor.reshape(shape)
                    weight.assign(product.reshape(weight.shape))

        return rescale

    return {axis: along(axis) for axis in _axes(op)}
