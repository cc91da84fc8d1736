"""Normalizations that measure units against one another.

Layer and group normalization need all units that they take together. In root-mean-square and unit
normalization, units that are exactly 0 do not change the sum of squares, so they can go.
"""

from __future__ import annotations

import abc

import keras
import numpy as np
from keras import layers

from keras_sbp.handlers._common import at_least_one, constant_slices, numpy_weight, rescaling
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.program import Op
from keras_sbp.program.slim import Rescale, Slim
from keras_sbp.program.units import Known, Needs, constants, kept, only, tidy


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
        return [{axis: keep for axis, keep in only(needed).items() if axis not in _axes(op)}]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same layer with the same weights."""
        slim = build.settle(only(inputs))
        weights = {"gamma": op.operation.gamma, "beta": op.operation.beta}
        weights = {name: numpy_weight(w) for name, w in weights.items() if w is not None}
        layer, tensor = build.call(op, slim.tensor, weights)
        rescale = {} if op.shared or layer.gamma is None else _rescale_along(op, layer)
        return [build.slim(op.outputs[0], tensor, carried=slim.carried, rescale=rescale)]

    def unit_axes(self, op: Op) -> list[int]:
        """None: its weights weigh units that others make."""
        return []


def _spread(op: Op, weight: keras.Variable | None, default: float) -> np.ndarray:
    """A weight with the rank of the input, as Keras broadcasts it. float64."""
    shape = [1] * op.inputs[0].rank
    for axis in _axes(op):
        shape[axis] = op.inputs[0].size(axis)
    if weight is None:
        return np.full(shape, default)
    return numpy_weight(weight).astype(np.float64).reshape(shape)


def _rescale_along(op: Op, layer: keras.layers.LayerNormalization) -> dict[int, Rescale]:
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


@register_handler(layers.GroupNormalization)
class GroupNormalization(LayerHandler):
    """Whole groups are pruned, so single channels where every channel is a group; all positions
    are needed. A group that is exactly 0, and a channel whose gamma is 0, become the constant
    beta.
    """

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """A group of zeros becomes beta, and so does a channel whose gamma is 0."""
        axis = _channel_axis(op)
        zero = constants(inputs[0], axis, op.inputs[0].size(axis)) == 0
        is_beta = np.repeat(_by_group(op, zero).all(1), _group_size(op))
        if any((constant == 0).all() for constant in inputs[0].values()):
            is_beta[:] = True
        weights = {name: numpy_weight(w).astype(float) for name, w in _gamma_and_beta(op.operation)}
        is_beta |= weights.get("gamma", np.ones(is_beta.size)) == 0
        beta = weights.get("beta", np.zeros(is_beta.size))
        return [tidy({axis: np.where(is_beta, beta, np.nan)})]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """The groups of needed channels, at all positions."""
        wanted = only(needed)
        axis = _channel_axis(op)
        if axis not in wanted:
            return [{}]
        return [{axis: np.repeat(_by_group(op, wanted[axis]).any(1), _group_size(op))}]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """Fewer groups of the same size."""
        axis, size = _channel_axis(op), _group_size(op)
        slim = build.settle(only(inputs))
        # More may be carried than was asked for, but only whole groups are of use.
        groups = _by_group(op, slim.carries(axis)).all(1)
        carried = np.repeat(groups, size)
        slim = build.take(slim, axis, carried)
        weights = {name: numpy_weight(w)[carried] for name, w in _gamma_and_beta(op.operation)}
        layer, tensor = build.call(op, slim.tensor, weights, groups=int(groups.sum()))
        rescale = {axis: rescaling(layer, {"gamma": 0, "beta": 0}, carried)}
        if op.shared or layer.gamma is None:
            rescale = {}
        return [build.slim(op.outputs[0], tensor, carried={axis: carried}, rescale=rescale)]


def _channel_axis(op: Op) -> int:
    return op.operation.axis % op.inputs[0].rank


def _group_size(op: Op) -> int:
    return op.inputs[0].shape[_channel_axis(op)] // op.operation.groups


def _by_group(op: Op, channels: np.ndarray) -> np.ndarray:
    return channels.reshape(op.operation.groups, -1)


def _gamma_and_beta(layer: keras.layers.GroupNormalization) -> list[tuple[str, keras.Variable]]:
    named = [("gamma", layer.gamma), ("beta", layer.beta)]
    return [(name, weight) for name, weight in named if weight is not None]


class SquareNorm(LayerHandler):
    """What root-mean-square and unit normalization share."""

    @abc.abstractmethod
    def rebuild_layer(
        self, op: Op, slim: Slim, build: Builder
    ) -> tuple[keras.KerasTensor, dict[int, Rescale]]:
        """Returns the output of the layer on fewer units, and how to rescale it."""

    def refuses(self, op: Op) -> str | None:
        """Refuses the batch axis."""
        return "it normalises over the batch" if 0 in _axes(op) else None

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """Zeros stay."""
        return [tidy({a: np.where(c == 0, 0.0, np.nan) for a, c in inputs[0].items()})]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Along the normalised axes, units that are not 0 or are needed; else what is needed."""
        wanted = only(needed)
        needs = {} if op.shared else dict(wanted)
        for axis in _axes(op):
            size = op.inputs[0].size(axis)
            if size is not None:
                counts = constants(inputs[0], axis, size) != 0
                needs[axis] = at_least_one(counts | kept(wanted, axis, size))
        return [needs]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same layer on fewer units."""
        slim = build.settle(only(inputs))
        tensor, rescale = self.rebuild_layer(op, slim, build)
        return [build.slim(op.outputs[0], tensor, carried=slim.carried, rescale=rescale)]

    def unit_axes(self, op: Op) -> list[int]:
        """None: its weights weigh units that others make."""
        return []


@register_handler(layers.UnitNormalization)
class UnitNormalization(SquareNorm):
    """Units that are exactly 0 are pruned along the axes that it normalises; all others are
    needed there. Units along other axes pass. Opaque when it normalises over the batch.
    """

    def rebuild_layer(
        self, op: Op, slim: Slim, build: Builder
    ) -> tuple[keras.KerasTensor, dict[int, Rescale]]:
        """There is nothing to change."""
        return build.layer(op)(slim.tensor), {}


@register_handler(layers.RMSNormalization)
class RMSNormalization(SquareNorm):
    """Units that are exactly 0 are pruned along the axes that it normalises, with a changed
    epsilon and scale; all others are needed there. Units along other axes pass. Opaque when the
    axes are not the last ones.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses other axes than the last ones, along which Keras would not lay the scale."""
        rank, axes = op.inputs[0].rank, _axes(op)
        if axes != list(range(rank - len(axes), rank)):
            return "it does not normalise the last axes"
        return super().refuses(op)

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """Zeros stay, and a scale of 0 makes some."""
        known = super().values(op, inputs)[0]
        scale = numpy_weight(op.operation.scale)
        for i, axis in enumerate(_axes(op)):
            made = constant_slices(scale, i) == 0
            known[axis] = np.where(made, 0.0, constants(known, axis, made.size))
        return [tidy(known)]

    def rebuild_layer(
        self, op: Op, slim: Slim, build: Builder
    ) -> tuple[keras.KerasTensor, dict[int, Rescale]]:
        """Keeps x · scale / √(S/n + ε), where S is the sum of squares of n units.

        With n′ of them left, S/n + ε = n′/n · (S/n′ + ε·n/n′): epsilon is multiplied by n/n′ and
        the scale by √(n/n′).
        """
        old, axes = op.operation, _axes(op)
        carried = [slim.carries(axis) for axis in axes]
        ratio = float(np.prod([keep.size / keep.sum() for keep in carried]))
        epsilon = keras.config.epsilon() if old.epsilon is None else old.epsilon
        scale = numpy_weight(old.scale)[np.ix_(*carried)] * np.sqrt(ratio)
        layer, tensor = build.call(op, slim.tensor, {"scale": scale}, epsilon=epsilon * ratio)
        if op.shared:
            return tensor, {}
        return tensor, {
            axis: rescaling(layer, {"scale": i}, carried[i]) for i, axis in enumerate(axes)
        }


def _axes(op: Op) -> list[int]:
    axis = op.operation.axis
    axes = axis if isinstance(axis, list | tuple) else [axis]
    return [each % op.inputs[0].rank for each in axes]
