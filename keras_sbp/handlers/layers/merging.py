"""Add, Subtract, Average, Multiply, Maximum, Minimum: unit by unit, over several tensors."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_sbp.handlers._common import constant_slices
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.program import Op
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, every, only, tidy


class Merge(LayerHandler):
    """Operands broadcast: missing axes are put in behind the batch axis, size 1 repeats."""

    @abc.abstractmethod
    def combine(self, op: Op, constants: list[np.ndarray]) -> np.ndarray:
        """Merges the operands' constants; NaN (varying) spreads as arithmetic spreads it."""

    def operands(self, op: Op) -> list[Operand]:
        """Returns what is merged, in order."""
        return [Operand(tensor.shape, index) for index, tensor in enumerate(op.inputs)]

    def scaled_axes(self, op: Op) -> frozenset[int]:
        """Returns the axes along which numbers ≥ 0 pass from a single tensor to the output."""
        return frozenset()

    def call(
        self, op: Op, slims: dict[int, Slim], carried: Needs, build: Builder
    ) -> keras.KerasTensor:
        """Repeats the call on the new tensors, which carry the same units."""
        return build.layer(op)([slim.tensor for slim in slims.values()])

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """A unit is constant where it is constant in every operand."""
        operands, known = self.operands(op), {}
        for axis, size in enumerate(op.outputs[0].shape):
            if axis > 0 and size is not None:
                known[axis] = self.combine(op, [o.constants(op, inputs, axis) for o in operands])
        return [tidy(known)]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Each operand must carry the units of the output."""
        return [o.needs(op, only(needed)) for o in self.operands(op) if o.index is not None]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same layer on operands that carry the same units."""
        passing = self.scaled_axes(op)
        given = dict(enumerate(every(inputs)))
        slims, carried = align_operands(op, self.operands(op), given, build, passing)
        tensor = self.call(op, slims, carried, build)
        first = slims[0]
        return [
            build.slim(
                op.outputs[0],
                tensor,
                carried=carried,
                scale=first.scale if passing else {},
                rescale={a: r for a, r in first.rescale.items() if a in passing},
            )
        ]


@register_handler(layers.Maximum)
class Maximum(Merge):
    """A unit stays while it is needed of the result; constants pass."""

    def combine(self, op: Op, constants: list[np.ndarray]) -> np.ndarray:
        """The largest constant."""
        return np.maximum.reduce(constants)


@register_handler(layers.Minimum)
class Minimum(Merge):
    """A unit stays while it is needed of the result; constants pass."""

    def combine(self, op: Op, constants: list[np.ndarray]) -> np.ndarray:
        """The smallest constant."""
        return np.minimum.reduce(constants)


class FoldingMerge(Merge):
    """A merge that a constant operand turns into an affine function of the others."""

    @abc.abstractmethod
    def fold(
        self, op: Op, constants: dict[int, np.ndarray], size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns (slope, offset): output = slope · (the varying operands merged) + offset."""

    def folds(self, op: Op, index: int, constant: np.ndarray) -> bool:
        """Tells whether an operand can be folded that is constant along an axis."""
        return not np.isnan(constant).any()

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Operands that are constant are not needed, as long as one varies."""
        _, folded = self._foldable(op, inputs)
        needs = super().needs(op, needed, inputs)
        return [None if i in folded else each for i, each in enumerate(needs)]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same layer on the varying operands, then what the constant ones add or multiply."""
        known = [build.known(tensor) for tensor in op.inputs]
        axis, folded = self._foldable(op, known)
        if not folded:
            return super().rebuild(op, inputs, needed, build)
        operands = self.operands(op)
        constants = {i: operands[i].constants(op, known, axis) for i in folded}
        slope, offset = self.fold(op, constants, op.outputs[0].size(axis))
        varying = {i: slim for i, slim in enumerate(inputs) if slim is not None and i not in folded}
        slims, carried = align_operands(op, operands, varying, build)
        if len(slims) > 1:
            tensor = self.call(op, slims, carried, build)
        else:
            tensor = next(iter(slims.values())).tensor
        merged = build.slim(op.outputs[0], tensor, carried=carried)
        return [build.affine(merged, axis, slope, offset)]

    def _foldable(self, op: Op, known: list[Known]) -> tuple[int, set[int]]:
        """Returns an output axis and the tensors that are wholly constant along it.

        None are, where the others would not fill the output's shape, or where all are constant.
        Fixed numbers stay in the call that they were written in.
        """
        shape, operands = op.outputs[0].shape, self.operands(op)
        if any(operand.index is None for operand in operands):
            return 0, set()
        for axis in range(1, len(shape)):
            if shape[axis] is None:
                continue
            constants = [operand.constants(op, known, axis) for operand in operands]
            folded = {i for i, c in enumerate(constants) if self.folds(op, i, c)}
            rest = [tensor.shape for i, tensor in enumerate(op.inputs) if i not in folded]
            if folded and any(tuple(each) == tuple(shape) for each in rest):
                return axis, folded
        return 0, set()


@register_handler(layers.Add)
class Add(FoldingMerge):
    """A unit stays while it is needed of the result. Constants pass; operands that are wholly
    constant vanish.
    """

    def combine(self, op: Op, constants: list[np.ndarray]) -> np.ndarray:
        """The sum of the constants."""
        return np.add.reduce(constants)

    def fold(
        self, op: Op, constants: dict[int, np.ndarray], size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Constants are added."""
        return np.ones(size), np.add.reduce(list(constants.values()))


@register_handler(layers.Subtract)
class Subtract(FoldingMerge):
    """A unit stays while it is needed of the result. Constants pass; operands that are wholly
    constant vanish.
    """

    def combine(self, op: Op, constants: list[np.ndarray]) -> np.ndarray:
        """The difference of the constants."""
        return constants[0] - constants[1]

    def fold(
        self, op: Op, constants: dict[int, np.ndarray], size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """x − c, or c − x."""
        if 0 in constants:
            return -np.ones(size), constants[0]
        return np.ones(size), -constants[1]


@register_handler(layers.Average)
class Average(FoldingMerge):
    """A unit stays while it is needed of the result. Constants pass; operands that are wholly
    constant vanish.
    """

    def combine(self, op: Op, constants: list[np.ndarray]) -> np.ndarray:
        """The mean of the constants."""
        return np.add.reduce(constants) / len(constants)

    def fold(
        self, op: Op, constants: dict[int, np.ndarray], size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The mean of fewer is taken over fewer."""
        count = len(op.inputs)
        varying = count - len(constants)
        return np.full(size, varying / count), np.add.reduce(list(constants.values())) / count


@register_handler(layers.Multiply)
class Multiply(FoldingMerge):
    """A unit stays while it is needed of the result; one that is 0 in one operand goes in all.
    Constants pass; operands that are wholly constant vanish.
    """

    def combine(self, op: Op, constants: list[np.ndarray]) -> np.ndarray:
        """The product of the constants, 0 where any is 0."""
        zero = np.logical_or.reduce([constant == 0 for constant in constants])
        return np.where(zero, 0.0, np.multiply.reduce(constants))

    def fold(
        self, op: Op, constants: dict[int, np.ndarray], size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Constants are multiplied."""
        return np.multiply.reduce(list(constants.values())), np.zeros(size)


@dataclass(frozen=True, eq=False)
class Operand:
    """One of the things that are combined: a tensor, or fixed numbers.

    Attributes:
        shape: aligned with the output's at the last axis.
        index: the number of the tensor among the op's inputs.
        fixed: the numbers, as they stand in the call.
        array: the numbers in float64, with as many axes as the output.
    """

    shape: tuple[int | None, ...]
    index: int | None = None
    fixed: Any = None
    array: np.ndarray | None = None

    def own_axis(self, op: Op, axis: int) -> int | None:
        """Returns the axis that lies under one of the output's, or None where there is none."""
        own = axis - (op.outputs[0].rank - len(self.shape))
        return own if own > 0 else None

    def axis_of_units(self, op: Op, axis: int) -> int | None:
        """Returns the axis with one unit for each of the output's along an axis, or None."""
        own, size = self.own_axis(op, axis), op.outputs[0].shape[axis]
        return own if own is not None and size is not None and self.shape[own] == size else None

    def constants(self, op: Op, known: list[Known], axis: int) -> np.ndarray:
        """Returns the constants along an axis of the output, repeated where it broadcasts."""
        size = op.outputs[0].size(axis)
        if self.array is not None:
            return np.broadcast_to(constant_slices(self.array, axis), size)
        own = self.own_axis(op, axis)
        if self.index is None or own is None:
            return np.full(size, np.nan)
        return np.broadcast_to(known[self.index].get(own, np.array([np.nan])), size)

    def needs(self, op: Op, needed: Needs) -> Needs:
        """Returns what must be there of the operand for the needed units of the output."""
        own = {axis: self.axis_of_units(op, axis) for axis in needed}
        return {a: needed[axis] for axis, a in own.items() if a is not None}


def align_operands(
    op: Op,
    operands: list[Operand],
    slims: dict[int, Slim],
    build: Builder,
    but_axes: frozenset[int] = frozenset(),
) -> tuple[dict[int, Slim], Needs]:
    """Settles operands and makes them carry the same units; returns what the output carries."""
    slims = {i: build.settle(slim, but_axes) for i, slim in slims.items()}
    carried = _carried(op, operands, slims)
    if any(not np.array_equal(keep, keeps[0]) for keeps in carried.values() for keep in keeps):
        slims = {i: build.align(op, i, slim) for i, slim in slims.items()}
        carried = _carried(op, operands, slims)
    return slims, {axis: keeps[0] for axis, keeps in carried.items()}


def _carried(
    op: Op, operands: list[Operand], slims: dict[int, Slim]
) -> dict[int, list[np.ndarray]]:
    """Output axis → what each operand that has this axis carries there."""
    carried: dict[int, list[np.ndarray]] = {}
    for axis in range(1, op.outputs[0].rank):
        for operand in operands:
            own = operand.axis_of_units(op, axis)
            if operand.index is not None and operand.index in slims and own is not None:
                carried.setdefault(axis, []).append(slims[operand.index].carries(own))
    return carried
