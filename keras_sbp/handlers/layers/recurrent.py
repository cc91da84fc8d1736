"""Recurrent layers: a hidden unit stays while a needed unit reads it, however indirectly."""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import layers

from keras_sbp.handlers._common import (
    CALLED_WITH_A_MASK,
    at_least_one,
    further_tensors,
)
from keras_sbp.handlers.layers._recurrence import (
    Recurrence,
    all_kernels,
    closed,
    directions,
    repetitions,
    serialised,
    unit_axis,
    why_not,
)
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.program import Op, Tensor
from keras_sbp.program.registry import stock_class
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, constants, kept, only


class Recurrent(LayerHandler):
    """What layers of one or two recurrences share: the same units stay in all of them.

    Attributes:
        cells: where the layer has the cell of each recurrence.
    """

    cells: tuple[str, ...] = ("cell",)

    def refuses(self, op: Op) -> str | None:
        """Refuses masks, initial states, states that outlive a call, and cells of other kinds."""
        if "mask" in further_tensors(op):
            return CALLED_WITH_A_MASK
        if len(op.inputs) != 1:
            return "it is given initial states"
        reasons = (why_not(layer) for layer in directions(op.operation))
        return next((reason for reason in reasons if reason), None)

    def config(self, recurrences: list[Recurrence], units: int, use_bias: list[bool]) -> dict:
        """The changes of the config that make the layer this narrow."""
        return recurrences[0].config(units, use_bias[0])

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """Nothing is constant over time steps."""
        return [{} for _ in op.outputs]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Inputs with weight towards a unit that stays; constants go into the input bias."""
        recurrences = _recurrences(op)
        axis, units = _axis(recurrences, op.inputs[0].rank), _units(op, recurrences, needed)
        reaches = np.logical_or.reduce([each.reaches(units) for each in recurrences])
        constant = constants(inputs[0], axis, reaches.size)
        zero_only = op.shared or any(each.pads for each in recurrences)
        free = constant == 0 if zero_only else ~np.isnan(constant)
        return [{axis: at_least_one(reaches & ~free)}]

    def computes(self, op: Op, needed: list[Needs | None]) -> list[Needs | None]:
        """The hidden units that stay, in every output."""
        recurrences = _recurrences(op)
        units = _units(op, recurrences, needed)
        return [_carried(recurrences, tensor, units) for tensor in op.outputs]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """Narrower kernels of all gates; pending scales go into the input kernels."""
        recurrences = _recurrences(op)
        axis, units = _axis(recurrences, op.inputs[0].rank), _units(op, recurrences, needed)
        slim = build.settle(only(inputs), () if op.shared else {axis})
        if not op.shared:
            slim = build.trim(op, slim, axis, _macs_per_input(op, recurrences, units))
        biases = [each.bias_with(slim.absorbed(axis)) for each in recurrences]
        use_bias = [
            each.layer.cell.use_bias or bool(bias[..., units].any())
            for each, bias in zip(recurrences, biases, strict=True)
        ]
        weights: dict[str, np.ndarray] = {}
        for cell, each, bias, has_bias in zip(
            self.cells, recurrences, biases, use_bias, strict=True
        ):
            narrowed = each.narrowed(slim, axis, units, bias if has_bias else None)
            weights |= {f"{cell}.{name}": value for name, value in narrowed.items()}
        changes = self.config(recurrences, int(units.sum()), use_bias)
        _, results = build.call(op, slim.tensor, weights, **changes)
        return [
            build.slim(source, tensor, carried=_carried(recurrences, source, units))
            for source, tensor in zip(op.outputs, keras.tree.flatten(results), strict=True)
        ]

    def macs(self, op: Op) -> int:
        """All kernels, at every step."""
        return sum(math.prod(each.shape) for each in all_kernels(op.operation)) * repetitions(op)

    def unit_axes(self, op: Op) -> list[int]:
        """The axis of the hidden units."""
        layer, rank = directions(op.operation)[0], op.outputs[0].rank
        return [unit_axis(layer, rank)] if super().unit_axes(op) else []

    def kernel_rows(self, op: Op, axis: int) -> np.ndarray | None:
        """The weights from the input to each hidden unit, those of both directions together."""
        if any(why_not(layer) for layer in directions(op.operation)):
            return None
        recurrences = _recurrences(op)
        rows = [np.moveaxis(each.kernel, -1, 0).reshape(each.units, -1) for each in recurrences]
        if any(len(each) != len(rows[0]) for each in rows):
            return None
        side_by_side = op.outputs[0].size(axis) > len(rows[0])
        return np.concatenate(rows, axis=0 if side_by_side else 1)


@register_handler(layers.LSTM, layers.GRU, layers.SimpleRNN, layers.RNN)
class RecurrentLayer(Recurrent):
    """Input features are pruned; constants go into the bias. A hidden unit stays while it is
    needed, or read by one that stays. Opaque when stateful, given initial states or a mask, or
    made of other cells than one LSTMCell, GRUCell or SimpleRNNCell.
    """


@register_handler(layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
class ConvLSTM(Recurrent):
    """Input channels and filters are pruned as in an LSTM; constants go into the bias unless
    zero-padded. Opaque when stateful, or given initial states or a mask.
    """


@register_handler(layers.Bidirectional)
class Bidirectional(Recurrent):
    """Pruned like the layer inside, with the same units in both directions. Opaque when that layer
    would be, or when the directions differ in width.
    """

    cells = ("forward_layer.cell", "backward_layer.cell")

    def refuses(self, op: Op) -> str | None:
        """Refuses directions that differ, and channels that are not joined as channels."""
        reason = super().refuses(op)
        if reason:
            return reason
        forward, backward = _recurrences(op)
        if forward.units != backward.units:
            return "its directions differ in width"
        last = op.inputs[0].rank - 1
        if any(unit_axis(each.layer, last + 1) != last for each in (forward, backward)):
            return "its layers are channels_first"
        return None

    def config(self, recurrences: list[Recurrence], units: int, use_bias: list[bool]) -> dict:
        """Both layers anew, each of its stock class."""
        configs = [
            serialised(each.layer, stock_class(each.layer), each.config(units, bias))
            for each, bias in zip(recurrences, use_bias, strict=True)
        ]
        return {"layer": configs[0], "backward_layer": configs[1]}


def _recurrences(op: Op) -> list[Recurrence]:
    return [Recurrence.of(layer) for layer in directions(op.operation)]


def _axis(recurrences: list[Recurrence], rank: int) -> int:
    return unit_axis(recurrences[0].layer, rank)


def _units(op: Op, recurrences: list[Recurrence], needed: list[Needs | None]) -> np.ndarray:
    """The hidden units that stay: needed of any output, in any direction, or read by these."""
    units = np.zeros(recurrences[0].units, bool)
    for tensor, needs in zip(op.outputs, needed, strict=True):
        if needs is not None:
            axis = _axis(recurrences, tensor.rank)
            # Directions side by side fold onto each other.
            units |= kept(needs, axis, tensor.size(axis)).reshape(-1, units.size).any(0)
    reads = np.logical_or.reduce([each.reads for each in recurrences])
    return closed(at_least_one(units), reads)


def _carried(recurrences: list[Recurrence], output: Tensor, units: np.ndarray) -> Needs:
    """What an output has where these hidden units stay; directions side by side fold apart."""
    axis = _axis(recurrences, output.rank)
    return {axis: np.tile(units, output.size(axis) // units.size)}


def _macs_per_input(op: Op, recurrences: list[Recurrence], units: np.ndarray) -> float:
    taps_and_gates = sum(each.kernel.shape[0] * each.kernel.shape[2] for each in recurrences)
    return taps_and_gates * units.sum() * repetitions(op)
