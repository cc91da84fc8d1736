"""The weights of one recurrent layer, gate by gate, and which unit reads which."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_sbp import _keras
from keras_sbp.handlers._common import numpy_weight
from keras_sbp.program.activations import is_elementwise
from keras_sbp.program.program import Op
from keras_sbp.program.registry import stock_class
from keras_sbp.program.slim import Slim

# What is known to run as its class says; any other cell may compute something else.
CELLS: dict[type, tuple[type, ...]] = {
    layers.LSTM: (layers.LSTMCell,),
    layers.GRU: (layers.GRUCell,),
    layers.SimpleRNN: (layers.SimpleRNNCell,),
    layers.ConvLSTM1D: (_keras.ConvLSTMCell,),
    layers.ConvLSTM2D: (_keras.ConvLSTMCell,),
    layers.ConvLSTM3D: (_keras.ConvLSTMCell,),
    layers.RNN: (layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell),
}

# What Keras leaves out of some configs, and functions of the user's, which need not be registered.
_AS_THEY_ARE = ("activation", "recurrent_activation", "implementation", "seed")


def why_not(layer: Any) -> str | None:
    """Returns why a recurrent layer is not understood, or None if it is."""
    cells = CELLS.get(stock_class(layer), ())
    cell = getattr(layer, "cell", None)
    if type(cell) not in cells:
        return f"its cell is a {type(cell).__name__}"
    if layer.stateful:
        return "it is stateful"
    if any(isinstance(function, keras.layers.Layer) for function in _activations(cell)):
        return "its activation is a layer"
    return None


def directions(layer: Any) -> list[Any]:
    """Returns the recurrent layers of a `Bidirectional`, or a recurrent layer itself."""
    if isinstance(layer, layers.Bidirectional):
        return [layer.forward_layer, layer.backward_layer]
    return [layer]


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


def all_kernels(layer: Any) -> list[keras.Variable]:
    """Returns all kernels of a recurrent layer; of cells that are not Keras's own, none."""
    cells = [each.cell for each in directions(layer) if hasattr(each, "cell")]
    single = [part for cell in cells for part in getattr(cell, "cells", [cell])]
    names = ("kernel", "recurrent_kernel")
    return [getattr(cell, name) for cell in single for name in names if hasattr(cell, name)]


def unit_axis(layer: Any, rank: int) -> int:
    """Returns the axis of units (or channels) in a sequence or state of this rank."""
    cell = getattr(layer, "cell", None)
    first = getattr(cell, "data_format", "channels_last") == "channels_first"
    return rank - 1 - (getattr(cell, "rank", 0) if first else 0)


@dataclass(frozen=True, eq=False)
class Recurrence:
    """The weights of a layer with one cell.

    Attributes:
        layer: the recurrent layer.
        kernel: shape (taps, inputs, gates, units); one tap unless the cell convolves.
        recurrent: shape (taps, units, gates, units).
        bias: float64, shape (rows, gates, units), zeros where there is none. The first row is
            added to what comes from the input.
    """

    layer: Any
    kernel: np.ndarray
    recurrent: np.ndarray
    bias: np.ndarray

    @classmethod
    def of(cls, layer: Any) -> Recurrence:
        """Reads the weights of a layer that `why_not` has no objection to."""
        cell = layer.cell
        kernel, recurrent = numpy_weight(cell.kernel), numpy_weight(cell.recurrent_kernel)
        inputs, units = kernel.shape[-2], recurrent.shape[-2]
        gates = kernel.shape[-1] // units
        rows = 2 if getattr(cell, "reset_after", False) else 1
        bias = numpy_weight(cell.bias) if cell.use_bias else np.zeros(rows * gates * units)
        return cls(
            layer,
            kernel.reshape(-1, inputs, gates, units),
            recurrent.reshape(-1, units, gates, units),
            bias.astype(np.float64).reshape(rows, gates, units),
        )

    @property
    def units(self) -> int:
        """The number of units."""
        return self.kernel.shape[-1]

    @property
    def pads(self) -> bool:
        """Whether inputs are padded with zeros."""
        cell = self.layer.cell
        padding = getattr(cell, "padding", "valid")
        return padding != "valid" and any(size > 1 for size in cell.kernel_size)

    @cached_property
    def reads(self) -> np.ndarray:
        """Entry (i, k): the next value of unit k depends on unit i. NaN counts as a weight."""
        if not all(is_elementwise(function) for function in _activations(self.layer.cell)):
            return np.ones((self.units, self.units), bool)
        return (self.recurrent != 0).any((0, 2))

    def reaches(self, units: np.ndarray) -> np.ndarray:
        """Which inputs have weight towards any of these units. Shape (inputs,)."""
        return (self.kernel[..., units] != 0).any((0, 2, 3))

    def bias_with(self, constant: np.ndarray) -> np.ndarray:
        """The bias together with what constant inputs add at every step, away from borders."""
        rows = np.flatnonzero(constant)
        bias = self.bias.copy()
        taps = self.kernel[:, rows].sum(0, dtype=np.float64)
        bias[0] += np.tensordot(constant[rows], taps, 1)
        return bias

    def config(self, units: int, use_bias: bool) -> dict[str, Any]:
        """Returns the changes of the layer's config that make it this narrow."""
        layer, cell = self.layer, self.layer.cell
        changes = {"filters" if hasattr(cell, "filters") else "units": units, "use_bias": use_bias}
        changes |= {name: getattr(cell, name) for name in _AS_THEY_ARE if hasattr(cell, name)}
        if stock_class(layer) is layers.RNN:
            return {"cell": serialised(cell, type(cell), changes)}
        if hasattr(layer, "use_cudnn"):
            changes["use_cudnn"] = layer.use_cudnn
        return changes

    def narrowed(
        self, slim: Slim, axis: int, units: np.ndarray, bias: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """Returns the weights of a narrower cell; pending scales go into the input kernel."""
        rows = slim.carries(axis)
        kernel = self.kernel[:, rows][..., units]
        if axis in slim.scale:
            kernel = kernel * slim.scale[axis][rows, None, None]
        weights = {"kernel": kernel, "recurrent_kernel": self.recurrent[:, units][..., units]}
        return weights if bias is None else weights | {"bias": bias[..., units]}


def closed(units: np.ndarray, reads: np.ndarray) -> np.ndarray:
    """Adds the units that these units read, the units that those read, and so on."""
    while True:
        grown = units | reads[:, units].any(1)
        if np.array_equal(grown, units):
            return units
        units = grown


def serialised(layer: Any, cls: type, changes: dict[str, Any]) -> dict[str, Any]:
    """Returns a layer as one of `cls`, with changes, and without the shape it was built for."""
    config = _keras.config_of(layer, cls, layer.name) | changes
    return {"module": "keras.layers", "class_name": cls.__name__, "config": config}


def _activations(cell: Any) -> list[Any]:
    return [cell.activation, getattr(cell, "recurrent_activation", None)]
