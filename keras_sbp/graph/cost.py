"""Multiply-accumulates per example."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers

from keras_sbp.graph.trace import Op, Tensor


def macs(op: Op) -> int:
    """Returns the multiply-accumulates that one call spends on one example.

    Counted are the kernels of Dense, (depthwise, separable) convolution: kernel size times
    output positions. Biases, normalisation, activations and pooling count as 0, as is usual.
    Unknown sizes count as 1.

    Args:
        op: a call of a traced program.
    """
    return sum(math.prod(k.shape) for k in _kernels(op.operation)) * _positions(op.outputs[0], op)


def _kernels(layer: Any) -> list[keras.Variable]:
    if isinstance(layer, layers.SeparableConv2D):
        return [layer.depthwise_kernel, layer.pointwise_kernel]
    if isinstance(layer, _WITH_KERNEL):
        return [layer.kernel]
    return []


_WITH_KERNEL = (
    layers.Dense,
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv2D,
)


def _positions(output: Tensor, op: Op) -> int:
    """The number of positions at which the kernel is applied: all axes but the units'."""
    first = getattr(op.operation, "data_format", "channels_last") == "channels_first"
    sizes = output.shape[2:] if first else output.shape[1:-1]
    return math.prod(n or 1 for n in sizes)
