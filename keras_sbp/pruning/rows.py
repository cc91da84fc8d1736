"""Dense layers and convolutions as least squares sees them: rows of features times a matrix."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_sbp.graph import Op
from keras_sbp.graph.handlers.common import channel_axis

CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
LINEAR = (layers.Dense, *CONVOLUTIONS)


def feature_axis(op: Op) -> int:
    """Returns the axis of the input along which a linear layer's features lie."""
    return channel_axis(op) if isinstance(op.operation, CONVOLUTIONS) else op.inputs[0].rank - 1


def matrix(kernel: Any) -> np.ndarray:
    """Returns a kernel as float64 of shape (kernel positions x input features, outputs)."""
    kernel = keras.ops.convert_to_numpy(kernel).astype(np.float64)
    return kernel.reshape(-1, kernel.shape[-1])


def count_rows(op: Op, shape: tuple[int, ...]) -> int:
    """Returns how many rows a batch has: one for each output position of each example.

    Args:
        op: a call of a linear layer.
        shape: of its input, batch axis included.
    """
    if not isinstance(op.operation, CONVOLUTIONS):
        return math.prod(shape[:-1])
    return shape[0] * math.prod(_positions(op, _channels_last(op, shape)))


def take_rows(op: Op, x: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Returns some rows, which times `matrix(kernel)` are the layer's outputs without bias.

    Args:
        op: a call of a linear layer.
        x: its input.
        which: the numbers of the rows, below `count_rows`.

    Returns:
        Array of shape (rows, features), with as many features as the matrix has rows: those at
        the first kernel position, then those at the second, and so on.
    """
    if not isinstance(op.operation, CONVOLUTIONS):
        return x.reshape(-1, x.shape[-1])[which]
    if channel_axis(op) == 1:
        x = np.moveaxis(x, 1, -1)
    layer, rank = op.operation, x.ndim - 2
    example, *position = np.unravel_index(which, (len(x), *_positions(op, x.shape)))
    x = np.pad(x, [(0, 0), *_padding(op, x.shape), (0, 0)])
    index = [example.reshape(-1, *[1] * rank)]
    for axis in range(rank):
        taps = np.arange(layer.kernel_size[axis]) * layer.dilation_rate[axis]
        starts = position[axis] * layer.strides[axis]
        along = [1] * rank
        along[axis] = -1
        index.append(starts.reshape(-1, *[1] * rank) + taps.reshape(along))
    return x[tuple(index)].reshape(len(which), -1)


def _channels_last(op: Op, shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], *shape[2:], shape[1]) if channel_axis(op) == 1 else shape


def _reach(op: Op) -> list[int]:
    """How far the kernel reaches along each axis."""
    sizes = zip(op.operation.kernel_size, op.operation.dilation_rate, strict=True)
    return [(size - 1) * dilation + 1 for size, dilation in sizes]


def _positions(op: Op, shape: tuple[int, ...]) -> list[int]:
    """How many output positions there are along each axis."""
    strides = op.operation.strides
    if op.operation.padding in ("same", "causal"):
        return [-(-n // stride) for n, stride in zip(shape[1:-1], strides, strict=True)]
    sizes = zip(shape[1:-1], _reach(op), strides, strict=True)
    return [(n - reach) // stride + 1 for n, reach, stride in sizes]


def _padding(op: Op, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    if op.operation.padding == "causal":
        return [(_reach(op)[0] - 1, 0)]
    if op.operation.padding == "valid":
        return [(0, 0)] * (len(shape) - 2)
    padding = []
    sizes = zip(shape[1:-1], _positions(op, shape), _reach(op), op.operation.strides, strict=True)
    for n, positions, reach, stride in sizes:
        missing = max((positions - 1) * stride + reach - n, 0)
        padding.append((missing // 2, missing - missing // 2))
    return padding
