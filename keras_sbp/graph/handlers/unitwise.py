"""Layers that act on each number alone and have no weights."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from keras_sbp.graph.activations import is_elementwise, is_homogeneous, on_constants
from keras_sbp.graph.builder import Builder
from keras_sbp.graph.handler import LayerHandler, register_handler
from keras_sbp.graph.slim import Slim
from keras_sbp.graph.trace import Cast, Op
from keras_sbp.graph.units import Known, Needs, tidy


class UnitWise(LayerHandler):
    """A function of each number alone: knowledge, needs and carried units pass through."""

    @abc.abstractmethod
    def function(self, op: Op) -> Callable[[Any], Any] | None:
        """Returns the function of a backend tensor, or None for the identity at inference."""

    @abc.abstractmethod
    def is_homogeneous(self, op: Op) -> bool:
        """Tells whether numbers ≥ 0 pass through the function."""

    def call(self, op: Op, tensor: keras.KerasTensor, build: Builder) -> keras.KerasTensor:
        """Repeats the call on the new tensor."""
        return build.layer(op)(tensor)

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """Constants go through the function."""
        dtype = op.operation.variable_dtype if isinstance(op.operation, layers.Layer) else "float32"
        return [tidy(on_constants(self.function(op), inputs[0], dtype))]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Each unit needs itself."""
        return [needed[0]]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same layer; scales pass through a homogeneous one."""
        slim = inputs[0]
        passes = self.is_homogeneous(op)
        if not passes:
            slim = build.settle(slim)
        tensor = self.call(op, slim.tensor, build)
        return [
            build.slim(
                op.outputs[0],
                tensor,
                carried=slim.carried,
                scale=slim.scale,
                rescale=slim.rescale if passes else {},
            )
        ]


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
