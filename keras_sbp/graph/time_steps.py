"""Layers that repeat something at every time step: axis 1 of their input."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers

from keras_sbp.graph.program import Op, Tensor


def inner_call(op: Op) -> Op:
    """Returns what a `TimeDistributed` does at one time step, as a call of the inner layer."""
    inputs = tuple(_without_time(tensor) for tensor in op.inputs)
    outputs = [_without_time(tensor) for tensor in op.outputs]
    return Op(op.operation.layer, inputs, {}, outputs, shared=op.shared)


def repetitions(op: Op) -> int:
    """Returns how often per example a recurrent layer applies its kernels.

    Once at every step; a convolutional one at every position too. Unknown sizes count as 1.
    """
    steps = op.inputs[0].shape[1] or 1
    cell = getattr(directions(op.operation)[0], "cell", None)
    rank = getattr(cell, "rank", 0)
    first = getattr(cell, "data_format", "channels_last") == "channels_first"
    shape = op.outputs[0].shape
    sizes = shape[len(shape) - rank :] if first else shape[len(shape) - 1 - rank : -1]
    return steps * math.prod(n or 1 for n in sizes)


def directions(layer: Any) -> list[Any]:
    """Returns the recurrent layers of a `Bidirectional`, or a recurrent layer itself."""
    if isinstance(layer, layers.Bidirectional):
        return [layer.forward_layer, layer.backward_layer]
    return [layer]


def recurrent_kernels(layer: Any) -> list[keras.Variable]:
    """Returns all kernels of a recurrent layer; of cells that are not Keras's own, none."""
    cells = [each.cell for each in directions(layer) if hasattr(each, "cell")]
    single = [part for cell in cells for part in getattr(cell, "cells", [cell])]
    names = ("kernel", "recurrent_kernel")
    return [getattr(cell, name) for cell in single for name in names if hasattr(cell, name)]


def _without_time(tensor: Tensor) -> Tensor:
    return Tensor((tensor.shape[0], *tensor.shape[2:]), tensor.dtype)
