"""RMSNormalization and UnitNormalization: units are divided by the size of all of them.

Units that are exactly 0 do not change the sum of squares, so they can go.
"""

from __future__ import annotations

import abc

import keras
import numpy as np
from keras import layers

from keras_sbp.graph.builder import Builder
from keras_sbp.graph.handler import LayerHandler, register_handler
from keras_sbp.graph.handlers.common import at_least_one, constant_slices, numpy_weight, rescaling
from keras_sbp.graph.slim import Rescale, Slim
from keras_sbp.graph.trace import Op
from keras_sbp.graph.units import Known, Needs, constants, kept, tidy


class SquareNorm(LayerHandler):
    """What the two share."""

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
        needs = {} if op.shared else dict(needed[0])
        for axis in _axes(op):
            size = op.inputs[0].shape[axis]
            if size is not None:
                counts = constants(inputs[0], axis, size) != 0
                needs[axis] = at_least_one(counts | kept(needed[0], axis, size))
        return [needs]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same layer on fewer units."""
        slim = build.settle(inputs[0])
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
