"""Separable convolution: a depthwise convolution without bias, then a 1×1 convolution."""

from __future__ import annotations

import math

import numpy as np
from keras import layers

from keras_sbp.graph.activations import is_elementwise, is_homogeneous, on_constants
from keras_sbp.graph.builder import Builder
from keras_sbp.graph.handler import LayerHandler, register_handler
from keras_sbp.graph.handlers.common import (
    at_least_one,
    bias_of,
    channel_axis,
    numpy_weight,
    pads_with_zeros,
    positions,
    rows_by,
)
from keras_sbp.graph.slim import Slim
from keras_sbp.graph.trace import Op
from keras_sbp.graph.units import Known, Needs, constants, kept, tidy


@register_handler(layers.SeparableConv1D, layers.SeparableConv2D)
class SeparableConv(LayerHandler):
    """Input channels, with the channels between its two halves that they own, and filters are
    pruned; constants go into the bias as in a convolution. Opaque when its activation does not
    act on each unit alone.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses activations that mix channels, or are layers."""
        if is_elementwise(op.operation.activation):
            return None
        return "its activation is not known to act on each unit alone"

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """An output varies where a varying input reaches it."""
        axis, response, reaches = channel_axis(op), _response(op), _reaches(op)
        constant = constants(inputs[0], axis, len(response))
        varies = np.isnan(constant)
        if pads_with_zeros(op):
            varies |= constant != 0
        output = np.where(varies, 0.0, constant) @ response + _bias(op)
        output[reaches[varies].any(0)] = np.nan
        activation, dtype = op.operation.activation, op.operation.variable_dtype
        return [tidy(on_constants(activation, tidy({axis: output}), dtype))]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Input channels that reach a needed output; constants go into the bias instead."""
        axis, reaches = channel_axis(op), _reaches(op)
        outputs = kept(needed[0], axis, reaches.shape[1])
        constant = constants(inputs[0], axis, len(reaches))
        zero_only = op.shared or pads_with_zeros(op)
        free = constant == 0 if zero_only else ~np.isnan(constant)
        return [{axis: at_least_one(reaches[:, outputs].any(1) & ~free)}]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """Both halves narrower; pending scales go into the depthwise kernel."""
        old, axis = op.operation, channel_axis(op)
        slim = build.settle(inputs[0], () if op.shared else {axis})
        outputs = kept(needed[0], axis, op.outputs[0].shape[axis])
        if not op.shared:
            slim = build.trim(op, slim, axis, _macs_per_input(op, outputs))
        carried = slim.carries(axis)
        bias = (_bias(op) + slim.absorbed(axis) @ _response(op))[outputs]
        use_bias = old.use_bias or bool(bias.any())
        layer = build.layer(op, filters=int(outputs.sum()), use_bias=use_bias)
        first_call = not layer.built
        tensor = layer(slim.tensor)
        if first_call:
            depthwise = numpy_weight(old.depthwise_kernel) * slim.scale_on(axis)[:, None]
            pointwise = numpy_weight(old.pointwise_kernel)
            between = np.repeat(carried, old.depth_multiplier)  # input c owns c·m … c·m + m − 1
            layer.depthwise_kernel.assign(depthwise[..., carried, :])
            layer.pointwise_kernel.assign(pointwise[..., between, :][..., outputs])
            if use_bias:
                layer.bias.assign(bias)

        def rescale(factor: np.ndarray) -> None:
            layer.pointwise_kernel.assign(numpy_weight(layer.pointwise_kernel) * factor[outputs])
            if use_bias:
                layer.bias.assign(numpy_weight(layer.bias) * factor[outputs])

        can_rescale = is_homogeneous(old.activation) and not op.shared
        return [
            build.slim(
                op.outputs[0],
                tensor,
                carried={axis: outputs},
                rescale={axis: rescale} if can_rescale else {},
            )
        ]

    def macs(self, op: Op) -> int:
        """Both kernels at every position."""
        kernels = op.operation.depthwise_kernel, op.operation.pointwise_kernel
        return sum(math.prod(each.shape) for each in kernels) * positions(op, op.outputs[0])

    def kernel_rows(self, op: Op, axis: int) -> np.ndarray | None:
        """The weights of each filter in the second half."""
        return rows_by(op.operation.pointwise_kernel, -1)


def _kernels(op: Op) -> tuple[np.ndarray, np.ndarray]:
    """The depthwise kernel as (taps, inputs, multiplier), the pointwise as (…, outputs)."""
    depthwise = numpy_weight(op.operation.depthwise_kernel)
    depthwise = depthwise.reshape(-1, *depthwise.shape[-2:])
    pointwise = numpy_weight(op.operation.pointwise_kernel)
    return depthwise, pointwise.reshape(*depthwise.shape[1:], -1)


def _response(op: Op) -> np.ndarray:
    """What a constant 1 in each input adds to each output. Shape (inputs, outputs)."""
    depthwise, pointwise = _kernels(op)
    return np.einsum("cm,cmo->co", depthwise.sum(0, dtype=np.float64), pointwise)


def _reaches(op: Op) -> np.ndarray:
    """Which input has weight towards which output. Shape (inputs, outputs)."""
    depthwise, pointwise = _kernels(op)
    return ((depthwise != 0).any(0)[:, :, None] & (pointwise != 0)).any(1)


def _macs_per_input(op: Op, outputs: np.ndarray) -> float:
    layer = op.operation
    positions = math.prod(n or 1 for n in op.outputs[0].shape[1:]) / layer.filters
    return positions * layer.depth_multiplier * (math.prod(layer.kernel_size) + outputs.sum())


def _bias(op: Op) -> np.ndarray:
    return bias_of(op.operation, op.operation.filters)
