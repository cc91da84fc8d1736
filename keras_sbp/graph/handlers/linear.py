"""Dense and convolution: every output unit is a weighted sum over input units."""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import layers

from keras_sbp.graph.activations import is_elementwise, is_homogeneous, on_constants
from keras_sbp.graph.builder import Builder
from keras_sbp.graph.handler import LayerHandler, handles
from keras_sbp.graph.handlers.common import (
    at_least_one,
    bias_of,
    channel_axis,
    numpy_weight,
    pads_with_zeros,
)
from keras_sbp.graph.slim import Rescale, Slim
from keras_sbp.graph.trace import Op
from keras_sbp.graph.units import Known, Needs, constants, kept, tidy


class Linear(LayerHandler):
    """What Dense and the convolutions share.

    The kernel is seen as an array (taps, inputs, outputs): one tap for Dense, one per kernel
    position for a convolution.
    """

    width = "units"  # the config entry that holds the number of outputs

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
        axis, kernel = self.axis(op), _kernel(op)
        constant = constants(inputs[0], axis, kernel.shape[1])
        varies = np.isnan(constant)
        if pads_with_zeros(op):
            varies |= constant != 0
        output = _bias(op) + _response(kernel, np.where(varies, 0.0, constant))
        output[_nonzero(kernel)[varies].any(0)] = np.nan
        activation = op.operation.activation
        if not is_elementwise(activation):
            return [{}]
        known = on_constants(activation, tidy({axis: output}), op.operation.variable_dtype)
        return [tidy(known)]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Inputs with weight towards a needed output; constants go into the bias instead."""
        axis, kernel = self.axis(op), _kernel(op)
        reaches = _nonzero(kernel)[:, self._outputs(op, needed[0])].any(1)
        constant = constants(inputs[0], axis, kernel.shape[1])
        zero_only = op.shared or pads_with_zeros(op)
        free = constant == 0 if zero_only else ~np.isnan(constant)
        needs = {axis: at_least_one(reaches & ~free)}
        if not op.shared:
            needs |= {a: needed[0][a] for a in self.other_axes(op) if a in needed[0]}
        return [needs]

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
        axis, kernel, outputs = self.axis(op), _kernel(op), self._outputs(op, needed[0])
        slim = build.settle(inputs[0], () if op.shared else {axis})
        if not op.shared:
            slim = build.trim(op, slim, axis, _macs_per_input(op, outputs))
        bias = (_bias(op) + _response(kernel, slim.absorbed(axis)))[outputs]
        use_bias = op.operation.use_bias or bool(bias.any())
        layer = build.layer(op, **{self.width: int(outputs.sum())}, use_bias=use_bias)
        first_call = not layer.built
        tensor = layer(slim.tensor)
        if first_call:
            layer.kernel.assign(_narrowed(kernel, slim, axis, outputs, layer.kernel.shape))
            if use_bias:
                layer.bias.assign(bias)
        carried = {a: k for a, k in slim.carried.items() if a in self.other_axes(op)}
        rescale = {} if op.shared else _rescale(layer, axis, outputs)
        carried[axis] = outputs
        return [build.slim(op.outputs[0], tensor, carried=carried, rescale=rescale)]


@handles(layers.Dense)
class Dense(Linear):
    """A convolution with one tap, at every position alone."""


@handles(layers.Conv1D, layers.Conv2D, layers.Conv3D)
class Conv(Linear):
    """Convolution without groups."""

    width = "filters"

    def refuses(self, op: Op) -> str | None:
        """Refuses grouped convolutions, whose units are tied to each other."""
        if op.operation.groups > 1:
            return "grouped convolution"
        return super().refuses(op)

    def axis(self, op: Op) -> int:
        """The channel axis."""
        return channel_axis(op)

    def other_axes(self, op: Op) -> range:
        """None: a convolution mixes positions."""
        return range(0)


def _kernel(op: Op) -> np.ndarray:
    kernel = numpy_weight(op.operation.kernel)
    return kernel.reshape(-1, *kernel.shape[-2:])


def _bias(op: Op) -> np.ndarray:
    return bias_of(op.operation, op.operation.kernel.shape[-1])


def _nonzero(kernel: np.ndarray) -> np.ndarray:
    """Which input reaches which output; NaN counts as a weight. Shape (inputs, outputs)."""
    return (kernel != 0).any(0)


def _response(kernel: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """What constant inputs add to each output, away from padded borders."""
    rows = np.flatnonzero(constant)
    return constant[rows] @ kernel[:, rows].sum(0, dtype=np.float64)


def _narrowed(
    kernel: np.ndarray, slim: Slim, axis: int, outputs: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    narrow = kernel[:, slim.carries(axis)][:, :, outputs]
    if axis in slim.scale:
        narrow = narrow * slim.scale[axis][slim.carries(axis), None]
    return narrow.reshape(shape)


def _macs_per_input(op: Op, outputs: np.ndarray) -> float:
    kernel = op.operation.kernel.shape
    positions = math.prod(n or 1 for n in op.outputs[0].shape[1:]) / kernel[-1]
    return positions * math.prod(kernel[:-2]) * outputs.sum()


def _rescale(layer: keras.layers.Layer, axis: int, outputs: np.ndarray) -> dict[int, Rescale]:
    """Multiplies the layer's output units where its activation lets numbers ≥ 0 through."""

    def rescale(factor: np.ndarray) -> None:
        layer.kernel.assign(numpy_weight(layer.kernel) * factor[outputs])
        if layer.use_bias:
            layer.bias.assign(numpy_weight(layer.bias) * factor[outputs])

    return {axis: rescale} if is_homogeneous(layer.activation) else {}
