"""Add, Subtract, Average, Multiply, Maximum, Minimum: unit by unit, over several tensors."""

from __future__ import annotations

import abc

import numpy as np
from keras import layers

from keras_sbp.graph.builder import Builder
from keras_sbp.graph.handler import LayerHandler, handles
from keras_sbp.graph.slim import Slim
from keras_sbp.graph.trace import Op
from keras_sbp.graph.units import Known, Needs, tidy


class Merge(LayerHandler):
    """Operands broadcast: missing axes are put in behind the batch axis, size 1 repeats."""

    @abc.abstractmethod
    def combine(self, op: Op, constants: list[np.ndarray]) -> np.ndarray:
        """Merges the operands' constants; NaN (varying) spreads as arithmetic spreads it."""

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """A unit is constant where it is constant in every operand."""
        known: Known = {}
        for axis, size in enumerate(op.outputs[0].shape):
            if axis > 0 and size is not None:
                known[axis] = self.combine(op, _constants(op, inputs, axis))
        return [tidy(known)]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Each operand must carry the units of the output."""
        return [_needs_of(op, i, needed[0]) for i in range(len(op.inputs))]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same layer on operands that carry the same units."""
        slims, carried = align_operands(op, dict(enumerate(inputs)), build)
        tensor = build.layer(op)([slim.tensor for slim in slims])
        return [build.slim(op.outputs[0], tensor, carried=carried)]


@handles(layers.Maximum)
class Maximum(Merge):
    """The largest operand."""

    def combine(self, op: Op, constants: list[np.ndarray]) -> np.ndarray:
        """The largest constant."""
        return np.maximum.reduce(constants)


@handles(layers.Minimum)
class Minimum(Merge):
    """The smallest operand."""

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

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Operands that are constant are not needed, as long as one varies."""
        _, folded = _foldable(op, inputs)
        return [None if i in folded else _needs_of(op, i, needed[0]) for i in range(len(op.inputs))]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same layer on the varying operands, then what the constant ones add or multiply."""
        known = [build.known(tensor) for tensor in op.inputs]
        axis, folded = _foldable(op, known)
        if not folded:
            return super().rebuild(op, inputs, needed, build)
        every = _constants(op, known, axis)
        slope, offset = self.fold(op, {i: every[i] for i in folded}, op.outputs[0].shape[axis])
        varying = {i: slim for i, slim in enumerate(inputs) if i not in folded}
        slims, carried = align_operands(op, varying, build)
        tensor = slims[0].tensor
        if len(slims) > 1:
            tensor = build.layer(op)([slim.tensor for slim in slims])
        merged = build.slim(op.outputs[0], tensor, carried=carried)
        return [build.affine(merged, axis, slope, offset)]


@handles(layers.Add)
class Add(FoldingMerge):
    """The sum."""

    def combine(self, op: Op, constants: list[np.ndarray]) -> np.ndarray:
        """The sum of the constants."""
        return np.add.reduce(constants)

    def fold(
        self, op: Op, constants: dict[int, np.ndarray], size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Constants are added."""
        return np.ones(size), np.add.reduce(list(constants.values()))


@handles(layers.Subtract)
class Subtract(FoldingMerge):
    """The first operand minus the second."""

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


@handles(layers.Average)
class Average(FoldingMerge):
    """The mean."""

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


@handles(layers.Multiply)
class Multiply(FoldingMerge):
    """The product; a unit that is 0 in one operand is 0, whatever the others do."""

    def combine(self, op: Op, constants: list[np.ndarray]) -> np.ndarray:
        """The product of the constants, 0 where any is 0."""
        zero = np.logical_or.reduce([constant == 0 for constant in constants])
        return np.where(zero, 0.0, np.multiply.reduce(constants))

    def fold(
        self, op: Op, constants: dict[int, np.ndarray], size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Constants are multiplied."""
        return np.multiply.reduce(list(constants.values())), np.zeros(size)


def align_operands(op: Op, slims: dict[int, Slim], build: Builder) -> tuple[list[Slim], Needs]:
    """Settles operands and makes them carry the same units; returns what the output carries."""
    slims = {i: build.settle(slim) for i, slim in slims.items()}
    carried = _carried(op, slims)
    if any(not np.array_equal(keep, keeps[0]) for keeps in carried.values() for keep in keeps):
        slims = {i: build.align(op, i, slim) for i, slim in slims.items()}
        carried = _carried(op, slims)
    return list(slims.values()), {axis: keeps[0] for axis, keeps in carried.items()}


def _carried(op: Op, slims: dict[int, Slim]) -> dict[int, list[np.ndarray]]:
    """Output axis → what each operand that has this axis carries there."""
    carried: dict[int, list[np.ndarray]] = {}
    for axis, size in enumerate(op.outputs[0].shape):
        if axis == 0 or size is None:
            continue
        for i, slim in slims.items():
            own = _own_axis(op, i, axis)
            if own is not None and op.inputs[i].shape[own] == size:
                carried.setdefault(axis, []).append(slim.carries(own))
    return carried


def _own_axis(op: Op, i: int, axis: int) -> int | None:
    """The operand's axis that lies under an axis of the output, or None where it has none."""
    own = axis - (op.outputs[0].rank - op.inputs[i].rank)
    return own if own > 0 else None


def _needs_of(op: Op, i: int, needed: Needs) -> Needs:
    needs: Needs = {}
    for axis, keep in needed.items():
        own = _own_axis(op, i, axis)
        if own is not None and op.inputs[i].shape[own] == keep.size:
            needs[own] = keep
    return needs


def _constants(op: Op, known: list[Known], axis: int) -> list[np.ndarray]:
    """Each operand's constants along an axis of the output, repeated where it broadcasts."""
    size = op.outputs[0].shape[axis]
    result = []
    for i in range(len(op.inputs)):
        own = _own_axis(op, i, axis)
        constant = known[i].get(own, np.array([np.nan]))
        result.append(np.broadcast_to(constant, size))
    return result


def _foldable(op: Op, known: list[Known]) -> tuple[int, set[int]]:
    """Returns an output axis and the operands that are wholly constant along it.

    None are, where the others would not fill the output's shape, or where all are constant.
    """
    shape = op.outputs[0].shape
    for axis in range(1, len(shape)):
        if shape[axis] is None:
            continue
        constants = _constants(op, known, axis)
        folded = {i for i, c in enumerate(constants) if not np.isnan(c).any()}
        rest = [t.shape for i, t in enumerate(op.inputs) if i not in folded]
        if folded and any(tuple(each[1:]) == tuple(shape[1:]) for each in rest):
            return axis, folded
    return 0, set()
