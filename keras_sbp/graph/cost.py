"""Multiply-accumulates per example."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers

from keras_sbp.graph.product_cost import product_macs
from keras_sbp.graph.time_steps import inner_call, recurrent_kernels, repetitions
from keras_sbp.graph.trace import Op


def macs(op: Op) -> int:
    """Returns the multiply-accumulates that one call spends on one example.

    Counted are the kernels of Dense, (depthwise, separable) convolution: kernel size times
    output positions; for transposed convolution, times input positions; of recurrent layers, times
    time steps; and products of tensors (einsum, matmul, attention). Biases, normalisation,
    activations and pooling count as 0, as is usual. Unknown sizes count as 1.

    Args:
        op: a call of a traced program.
    """
    if isinstance(op.operation, layers.TimeDistributed):
        return (op.inputs[0].shape[1] or 1) * macs(inner_call(op))
    if isinstance(op.operation, layers.RNN | layers.Bidirectional):
        return sum(math.prod(k.shape) for k in recurrent_kernels(op.operation)) * repetitions(op)
    products = product_macs(op)
    if products is not None:
        return products
    return sum(math.prod(k.shape) for k in _kernels(op.operation)) * _positions(op)


def _kernels(layer: Any) -> list[keras.Variable]:
    if isinstance(layer, layers.SeparableConv1D | layers.SeparableConv2D):
        return [layer.depthwise_kernel, layer.pointwise_kernel]
    if isinstance(layer, _WITH_KERNEL + _TRANSPOSED):
        return [layer.kernel]
    return []


_WITH_KERNEL = (
    layers.Dense,
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
)
_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)


def _positions(op: Op) -> int:
    """The number of positions at which the kernel is applied: all axes but the units'."""
    tensor = op.inputs[0] if isinstance(op.operation, _TRANSPOSED) else op.outputs[0]
    first = getattr(op.operation, "data_format", "channels_last") == "channels_first"
    sizes = tensor.shape[2:] if first else tensor.shape[1:-1]
    return math.prod(n or 1 for n in sizes)
