"""Depthwise convolution: every channel is filtered alone, into `depth_multiplier` channels."""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import layers

from keras_sbp.graph.activations import is_elementwise, is_homogeneous, on_constants
from keras_sbp.graph.builder import Builder
from keras_sbp.graph.handler import LayerHandler, register_handler
from keras_sbp.graph.handlers.common import (
    bias_of,
    channel_axis,
    numpy_weight,
    pads_with_zeros,
    positions,
)
from keras_sbp.graph.slim import Rescale, Slim
from keras_sbp.graph.trace import Op
from keras_sbp.graph.units import Known, Needs, constants, tidy


@register_handler(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
class DepthwiseConv(LayerHandler):
    """A channel goes with all outputs that `depth_multiplier` gives it; constants pass where
    nothing is padded. Opaque when its activation does not act on each unit alone.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses activations that mix channels, or are layers."""
        if is_elementwise(op.operation.activation):
            return None
        return "its activation is not known to act on each unit alone"

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """A constant channel stays constant away from padded borders; a kernel of 0 is the bias."""
        axis, kernel = channel_axis(op), _kernel(op)
        taps = kernel.sum(0, dtype=np.float64)
        constant = constants(inputs[0], axis, len(taps))
        if pads_with_zeros(op):
            constant = np.where(constant == 0, 0.0, np.nan)
        constant = np.where((kernel == 0).all(0), 0.0, constant[:, None]) * taps
        output = constant.reshape(-1) + _bias(op)
        activation, dtype = op.operation.activation, op.operation.variable_dtype
        return [tidy(on_constants(activation, tidy({axis: output}), dtype))]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """An input channel is needed while one of its output channels is."""
        axis = channel_axis(op)
        if axis not in needed[0]:
            return [{}]
        return [{axis: needed[0][axis].reshape(-1, op.operation.depth_multiplier).any(1)}]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The kernels of the carried channels; pending scales go into them."""
        axis, kernel = channel_axis(op), numpy_weight(op.operation.kernel)
        slim = build.settle(inputs[0], () if op.shared else {axis})
        if not op.shared:
            slim = build.trim(op, slim, axis, _macs_per_input(op))
        carried = slim.carries(axis)
        layer = build.layer(op)
        first_call = not layer.built
        tensor = layer(slim.tensor)
        outputs = np.repeat(carried, op.operation.depth_multiplier)
        if first_call:
            layer.kernel.assign((kernel * slim.scale_on(axis)[:, None])[..., carried, :])
            if layer.use_bias:
                layer.bias.assign(_bias(op)[outputs])
        rescale = {} if op.shared else _rescale(layer, axis, outputs)
        return [build.slim(op.outputs[0], tensor, carried={axis: outputs}, rescale=rescale)]

    def macs(self, op: Op) -> int:
        """The kernel at every position."""
        return math.prod(op.operation.kernel.shape) * positions(op, op.outputs[0])


def _kernel(op: Op) -> np.ndarray:
    """The kernel as (taps, c, m): output channel c·m + j comes from input channel c."""
    kernel = numpy_weight(op.operation.kernel)
    return kernel.reshape(-1, *kernel.shape[-2:])


def _bias(op: Op) -> np.ndarray:
    return bias_of(op.operation, math.prod(op.operation.kernel.shape[-2:]))


def _macs_per_input(op: Op) -> float:
    kernel = op.operation.kernel.shape
    values_per_input = math.prod(n or 1 for n in op.outputs[0].shape[1:]) / kernel[-2]
    return values_per_input * math.prod(kernel[:-2])


def _rescale(layer: keras.layers.Layer, axis: int, outputs: np.ndarray) -> dict[int, Rescale]:
    def rescale(factor: np.ndarray) -> None:
        factor = factor[outputs]
        by_channel = factor.reshape(-1, layer.depth_multiplier)
        layer.kernel.assign(numpy_weight(layer.kernel) * by_channel)
        if layer.use_bias:
            layer.bias.assign(numpy_weight(layer.bias) * factor)

    return {axis: rescale} if is_homogeneous(layer.activation) else {}
