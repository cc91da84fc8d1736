"""Small readings of layers that several handlers share."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import keras
import numpy as np

from keras_sbp.program.program import Op, Tensor, tensors_in
from keras_sbp.program.slim import Rescale

CALLED_WITH_A_MASK = "it is called with a mask"


def numpy_weight(variable: Any) -> np.ndarray:
    """Returns a weight as NumPy, in float32 at least."""
    value = keras.ops.convert_to_numpy(variable)
    return value.astype(np.float32) if value.dtype.itemsize < 4 else value


Answer = TypeVar("Answer")


def understood(answer: Answer | None) -> Answer:
    """Returns how a handler reads a call. It can: the calls that it cannot read, it refuses.

    Raises:
        ValueError: It cannot.
    """
    if answer is None:
        raise ValueError("The handler cannot read this call. Expected one that it does not refuse.")
    return answer


def elements(sizes: Collection[int | None]) -> int | None:
    """Returns the product of sizes, or None where one of them is unknown."""
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None


def rescaling(layer: keras.layers.Layer, weights: Mapping[str, int], keep: np.ndarray) -> Rescale:
    """Returns what multiplies a layer's output units, by changing its weights.

    Args:
        layer: the new layer, which has the units in `keep`.
        weights: attribute → along which of its axes the units lie. The layer may lack some.
        keep: which units of the original layer are left.
    """

    def rescale(factor: np.ndarray) -> None:
        for name, axis in weights.items():
            variable = getattr(layer, name)
            if variable is not None:
                shape = [1] * len(variable.shape)
                shape[axis] = -1
                variable.assign(numpy_weight(variable) * factor[keep].reshape(shape))

    return rescale


def further_tensors(op: Op) -> set[str]:
    """Returns the names of a layer's arguments, behind the first, that hold tensors."""
    arguments = inspect.signature(op.operation.call).bind(*op.args, **op.kwargs).arguments
    return {name for name, value in list(arguments.items())[1:] if tensors_in(value)}


def bias_of(layer: Any, outputs: int) -> np.ndarray:
    """Returns the layer's bias in float64, zeros where it has none. Shape (outputs,)."""
    return numpy_weight(layer.bias).astype(np.float64) if layer.use_bias else np.zeros(outputs)


def channel_axis(op: Op) -> int:
    """Returns the channel axis of a layer with `data_format`."""
    return 1 if op.operation.data_format == "channels_first" else op.inputs[0].rank - 1


def positions(op: Op, tensor: Tensor) -> int:
    """Returns the number of positions of a layer's tensor: all axes but the batch and the units'.

    Unknown sizes count as 1.
    """
    first = getattr(op.operation, "data_format", "channels_last") == "channels_first"
    sizes = tensor.shape[2:] if first else tensor.shape[1:-1]
    return math.prod(n or 1 for n in sizes)


def rows_by(kernel: Any, axis: int) -> np.ndarray:
    """Returns a kernel with one of its axes in front."""
    return np.moveaxis(numpy_weight(kernel), axis, 0)


def pads_with_zeros(op: Op) -> bool:
    """Tells whether a (depthwise, separable) convolution sees zeros beyond the borders."""
    layer = op.operation
    padding = getattr(layer, "padding", "valid")
    return padding != "valid" and any(size > 1 for size in layer.kernel_size)


def at_least_one(keep: np.ndarray) -> np.ndarray:
    """Returns `keep`, or its first unit alone if none is kept: no layer can be without inputs."""
    if keep.any():
        return keep
    first = np.zeros_like(keep)
    first[0] = True
    return first


def constant_slices(array: np.ndarray, axis: int) -> np.ndarray:
    """Returns the number of each slice along `axis` that holds one only, NaN for the others."""
    rows = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
    return np.where((rows == rows[:, :1]).all(1), rows[:, 0], np.nan)
