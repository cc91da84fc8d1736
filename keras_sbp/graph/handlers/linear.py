"""Dense and convolution: every output unit is a weighted sum over input units."""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import layers

from keras_sbp.graph.activations import is_elementwise, is_homogeneous, on_constants
from keras_sbp.graph.builder import Builder
from keras_sbp.graph.handler import LayerHandler, register_handler
from keras_sbp.graph.handlers.common import (
    at_least_one,
    bias_of,
    numpy_weight,
    pads_with_zeros,
    positions,
    rows_by,
)
from keras_sbp.graph.linear_map import LinearMap
from keras_sbp.graph.slim import Rescale, Slim
from keras_sbp.graph.trace import Op
from keras_sbp.graph.units import Known, Needs, constants, kept, tidy


class Linear(LayerHandler):
    """What Dense and the convolutions share.

    The kernel is seen as an array (taps, inputs, outputs): one tap for Dense, one per kernel
    position for a convolution.
    """

    width = "units"  # the config entry that holds the number of outputs

    def arrange(self, kernel: np.ndarray) -> np.ndarray:
        """Turns the layer's kernel into (…, inputs, outputs), and such a one back."""
        return kernel

    def absorbs_constants(self, op: Op) -> bool:
        """Tells whether a constant input adds the same number at every output position."""
        return not pads_with_zeros(op)

    def macs(self, op: Op) -> int:
        """The kernel at every position."""
        return math.prod(op.operation.kernel.shape) * self.positions(op)

    def macs_per_input(self, op: Op, outputs: np.ndarray) -> float:
        """Multiply-accumulates per example that one input unit costs."""
        return self.positions(op) * math.prod(op.operation.kernel.shape[:-2]) * outputs.sum()

    def positions(self, op: Op) -> int:
        """The number of positions at which the kernel is applied."""
        return positions(op, op.outputs[0])

    def kernel_rows(self, op: Op, axis: int) -> np.ndarray | None:
        """The weights of each output, at all taps and from all inputs."""
        return rows_by(self.arrange(numpy_weight(op.operation.kernel)), -1)

    def refuses(self, op: Op) -> str | None:
        """Refuses layers as activations: they may have weights of their own."""
        if isinstance(op.operation.activation, keras.layers.Layer):
            return "its activation is a layer"
        return None

    def axis(self, op: Op) -> int:
        """The unit axis of input and output."""
        return op.inputs[0].rank - 1

    def other_axes(self, op: Op) -> range:
        """Axes along which every position is computed alone, from the same position."""
        return range(1, self.axis(op)) if is_elementwise(op.operation.activation) else range(0)

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """An output varies where a varying input reaches it."""
        axis, kernel = self.axis(op), self._kernel(op)
        constant = constants(inputs[0], axis, kernel.shape[1])
        varies = np.isnan(constant)
        if not self.absorbs_constants(op):
            varies |= constant != 0
        output = self._bias(op) + _response(kernel, np.where(varies, 0.0, constant))
        output[_nonzero(kernel)[varies].any(0)] = np.nan
        activation = op.operation.activation
        if not is_elementwise(activation):
            return [{}]
        known = on_constants(activation, tidy({axis: output}), op.operation.variable_dtype)
        return [tidy(known)]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Inputs with weight towards a needed output; constants go into the bias instead."""
        axis, kernel = self.axis(op), self._kernel(op)
        reaches = _nonzero(kernel)[:, self._outputs(op, needed[0])].any(1)
        constant = constants(inputs[0], axis, kernel.shape[1])
        zero_only = op.shared or not self.absorbs_constants(op)
        free = constant == 0 if zero_only else ~np.isnan(constant)
        needs = {axis: at_least_one(reaches & ~free)}
        if not op.shared:
            needs |= {a: needed[0][a] for a in self.other_axes(op) if a in needed[0]}
        return [needs]

    def computes(self, op: Op, needed: list[Needs | None]) -> list[Needs | None]:
        """What is needed, or everything where the activation mixes units."""
        axis = self.axis(op)
        return [needs and needs | {axis: self._outputs(op, needs)} for needs in needed]

    def _kernel(self, op: Op) -> np.ndarray:
        """The kernel as (taps, inputs, outputs)."""
        kernel = self.arrange(numpy_weight(op.operation.kernel))
        return kernel.reshape(-1, *kernel.shape[-2:])

    def _bias(self, op: Op) -> np.ndarray:
        return bias_of(op.operation, op.outputs[0].shape[self.axis(op)])

    def _outputs(self, op: Op, needed: Needs) -> np.ndarray:
        """The output units to compute: all of them where the activation mixes units."""
        size = op.outputs[0].shape[self.axis(op)]
        if not is_elementwise(op.operation.activation):
            return np.ones(size, bool)
        return kept(needed, self.axis(op), size)

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """A narrower layer; pending scales go into the kernel, constants into the bias."""
        axis, kernel, outputs = self.axis(op), self._kernel(op), self._outputs(op, needed[0])
        slim = build.settle(inputs[0], () if op.shared else {axis})
        if not op.shared:
            slim = build.trim(op, slim, axis, self.macs_per_input(op, outputs))
        bias = (self._bias(op) + _response(kernel, slim.absorbed(axis)))[outputs]
        use_bias = op.operation.use_bias or bool(bias.any())
        layer = build.layer(op, **{self.width: int(outputs.sum())}, use_bias=use_bias)
        first_call = not layer.built
        tensor = layer(slim.tensor)
        if first_call:
            narrow = self.arrange(_narrowed(kernel, slim, axis, outputs))
            layer.kernel.assign(narrow.reshape(layer.kernel.shape))
            if use_bias:
                layer.bias.assign(bias)
        carried = {a: k for a, k in slim.carried.items() if a in self.other_axes(op)}
        rescale = {} if op.shared else self._rescale(layer, axis, outputs)
        carried[axis] = outputs
        return [build.slim(op.outputs[0], tensor, carried=carried, rescale=rescale)]

    def _rescale(
        self, layer: keras.layers.Layer, axis: int, outputs: np.ndarray
    ) -> dict[int, Rescale]:
        """Multiplies the layer's output units where its activation lets numbers ≥ 0 through."""

        def rescale(factor: np.ndarray) -> None:
            kernel = self.arrange(numpy_weight(layer.kernel)) * factor[outputs]
            layer.kernel.assign(self.arrange(kernel))
            if layer.use_bias:
                layer.bias.assign(numpy_weight(layer.bias) * factor[outputs])

        return {axis: rescale} if is_homogeneous(layer.activation) else {}


@register_handler(layers.Dense)
class Dense(Linear):
    """Input features and output units are pruned; constants go into the bias. Positions pass,
    where the input has more axes than one. Opaque when its activation is a layer.
    """

    def linear_map(self, op: Op) -> LinearMap:
        """At every position, the features."""
        layer = op.operation
        return LinearMap(layer.kernel, layer.bias if layer.use_bias else None, self.axis(op))


def _nonzero(kernel: np.ndarray) -> np.ndarray:
    """Which input reaches which output; NaN counts as a weight. Shape (inputs, outputs)."""
    return (kernel != 0).any(0)


def _response(kernel: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """What constant inputs add to each output, where they add the same at every position."""
    rows = np.flatnonzero(constant)
    return constant[rows] @ kernel[:, rows].sum(0, dtype=np.float64)


def _narrowed(kernel: np.ndarray, slim: Slim, axis: int, outputs: np.ndarray) -> np.ndarray:
    narrow = kernel[:, slim.carries(axis)][:, :, outputs]
    if axis in slim.scale:
        narrow = narrow * slim.scale[axis][slim.carries(axis), None]
    return narrow
