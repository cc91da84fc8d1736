"""Activations, noise and casts: layers that act on each unit alone, and Softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_sbp.handlers._common import constant_slices, elements, numpy_weight
from keras_sbp.handlers._unitwise import UnitWise
from keras_sbp.program.activations import is_elementwise, is_homogeneous
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.program import Cast, Op
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, every, only, tidy


@register_handler(layers.Activation)
class Activation(UnitWise):
    """Units and constants pass, scales through linear, ReLU and leaky ReLU. Opaque when the
    activation does not act on each unit alone, or is not a Keras function.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses functions that are not known to act on each unit alone."""
        activation = op.operation.activation
        if is_elementwise(activation):
            return None
        name = getattr(activation, "__name__", type(activation).__name__)
        return f"activation '{name}' is not known to act on each unit alone"

    def function(self, op: Op) -> Callable[[Any], Any] | None:
        """The activation function."""
        return op.operation.activation

    def is_homogeneous(self, op: Op) -> bool:
        """Linear, ReLU and leaky ReLU are."""
        return is_homogeneous(op.operation.activation)


@register_handler(layers.ReLU, layers.LeakyReLU, layers.ELU)
class ActivationLayer(UnitWise):
    """Units and constants pass; scales too through LeakyReLU, and through ReLU without `max_value`
    and `threshold`.
    """

    def function(self, op: Op) -> Callable[[Any], Any] | None:
        """The layer's computation, without a call being recorded on it."""
        return op.operation.call

    def is_homogeneous(self, op: Op) -> bool:
        """A ReLU is while nothing in it is measured against a fixed number."""
        layer = op.operation
        if isinstance(layer, layers.ReLU):
            return layer.max_value is None and not layer.threshold
        return isinstance(layer, layers.LeakyReLU)


@register_handler(
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.GaussianDropout,
    layers.Identity,
)
class MultiplicativeNoise(UnitWise):
    """The identity at inference: units, constants and scales pass."""

    def function(self, op: Op) -> Callable[[Any], Any] | None:
        """The identity."""
        return None

    def is_homogeneous(self, op: Op) -> bool:
        """Always."""
        return True


@register_handler(layers.GaussianNoise, layers.AlphaDropout, layers.ActivityRegularization)
class AdditiveNoise(UnitWise):
    """The identity at inference: units and constants pass. Scales do not, since what it does in
    training depends on the scale of its input.
    """

    def function(self, op: Op) -> Callable[[Any], Any] | None:
        """The identity."""
        return None

    def is_homogeneous(self, op: Op) -> bool:
        """Not in training, so scales are settled first."""
        return False


@register_handler(Cast)
class CastHandler(UnitWise):
    """The change of dtype at the border of a nested model."""

    def function(self, op: Op) -> Callable[[Any], Any] | None:
        """The cast, rounding included."""
        return lambda x: keras.ops.cast(x, op.operation.dtype)

    def is_homogeneous(self, op: Op) -> bool:
        """Up to rounding; not for integers."""
        return "float" in op.operation.dtype

    def call(self, op: Op, tensor: keras.KerasTensor, build: Builder) -> keras.KerasTensor:
        """A cast is an operation, not a layer."""
        return keras.ops.cast(tensor, op.operation.dtype)


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
        wanted = only(needed)
        if op.shared:
            return [{a: keep for a, keep in wanted.items() if a in _own_axes(op)}]
        return [wanted]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The slopes of the carried units; scales pass, since f(s·x) = s·f(x) for s ≥ 0."""
        slim = only(inputs)
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
        count = elements([op.inputs[0].shape[axis] for axis in _axes(op)])
        if count is None or len(op.inputs) > 1:
            return [{}]
        others = {axis: c for axis, c in inputs[0].items() if axis not in _axes(op)}
        return [tidy({axis: np.where(np.isnan(c), c, 1 / count) for axis, c in others.items()})]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Everything along its axes; what is needed of the output along others."""
        others = {axis: keep for axis, keep in only(needed).items() if axis not in _axes(op)}
        return [
            {axis: keep for axis, keep in others.items() if tensor.shape[axis] == keep.size}
            for tensor in op.inputs
        ]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same layer; a mask carries the units that the input carries."""
        slims = [build.settle(slim) for slim in every(inputs)]
        if len(slims) > 1:
            slims = [build.align(op, i, slim) for i, slim in enumerate(slims)]
        tensor = build.layer(op)(*(slim.tensor for slim in slims))
        return [build.slim(op.outputs[0], tensor, carried=slims[0].carried)]


def _axes(op: Op) -> list[int]:
    axis = op.operation.axis
    axes = axis if isinstance(axis, list | tuple) else [axis]
    return [each % op.inputs[0].rank for each in axes]
