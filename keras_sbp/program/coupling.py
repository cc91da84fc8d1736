"""Which units of different tensors are the same units, so that they stay or go together.

An op that treats units one by one hands them on: unit k of its output is unit k of its input. That
is asked of the handlers, not of layer classes, so it holds for layers that users registered: an
axis is handed on where one needed output unit needs that one input unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from keras_sbp.program.checks import ask_needs
from keras_sbp.program.handler import LayerHandler
from keras_sbp.program.program import Op, Program, Tensor
from keras_sbp.program.units import Known, Needs

PROBES = 3  # units per axis that are tried; one could match by accident


@dataclass(frozen=True)
class Spot:
    """One axis of one tensor."""

    tensor: Tensor
    axis: int

    @property
    def size(self) -> int:
        """The number of units."""
        return self.tensor.size(self.axis)


@dataclass(eq=False)
class CoupledUnits:
    """Spots that hold the same units.

    Attributes:
        spots: in the order of the program, each with the spots from which its op hands the
            units on; none where the units are made, or come in.
        makers: spot → the op that computes it; the model's inputs have none.
        contracts: some op sums over the products of two of the spots.
    """

    spots: dict[Spot, list[Spot]] = field(default_factory=dict)
    makers: dict[Spot, Op] = field(default_factory=dict)
    contracts: bool = False

    @property
    def sources(self) -> list[Spot]:
        """Where the units are made, or come in."""
        return [spot for spot, handed_on in self.spots.items() if not handed_on]


def coupled_units(program: Program, handlers: Mapping[Op, LayerHandler]) -> list[CoupledUnits]:
    """Returns the groups of a program, in the order of their first spots.

    The calls of a shared layer are coupled too: they have one set of weights. Axes of unknown
    size, and of size 1, are left out.
    """
    forest = _Forest()
    makers: dict[Spot, Op] = {}
    origins: dict[Spot, list[Spot]] = {}
    for tensor in program.inputs:
        for spot in _spots(tensor):
            origins[spot] = []
    for op in program.ops:
        for tensor in op.outputs:
            for spot in _spots(tensor):
                makers[spot], origins[spot] = op, []
        for before, after in handed_on(op, handlers[op]):
            origins[after].append(before)
            forest.join(before, after)
    contracted = [pair for op in program.ops for pair in _contracted(op, handlers[op])]
    for pair in [*contracted, *_shared(program)]:
        forest.join(*pair)
    groups: dict[Spot, CoupledUnits] = {}
    for spot, handed in origins.items():
        group = groups.setdefault(forest.root(spot), CoupledUnits())
        group.spots[spot] = handed
        if spot in makers:
            group.makers[spot] = makers[spot]
    for spot, _ in contracted:
        groups[forest.root(spot)].contracts = True
    return list(groups.values())


def handed_on(op: Op, handler: LayerHandler) -> list[tuple[Spot, Spot]]:
    """Returns the pairs (spot of an input, spot of an output) with the same units."""
    pairs = []
    for number, output in enumerate(op.outputs):
        for after in _spots(output):
            same = _needing_one(op, handler, number, after, 0)
            for probe in range(1, PROBES):
                # Most layers with weights fail the first time.
                same = same & _needing_one(op, handler, number, after, probe) if same else same
            pairs += [(before, after) for before in same]
    order = {tensor: i for i, tensor in enumerate(op.inputs)}
    return sorted(pairs, key=lambda pair: (order[pair[0].tensor], pair[0].axis, pair[1].axis))


def makes_several_of_one(op: Op, handler: LayerHandler, spot: Spot) -> bool:
    """Tells whether units of an output are made in blocks, each of one unit of an input.

    A depthwise convolution with a multiplier does so: its units can only go block by block.
    """

    def fits(unit: int) -> bool:
        needed: list[Needs | None] = [None] * len(op.outputs)
        needed[op.outputs.index(spot.tensor)] = {spot.axis: _one_hot(spot.size, unit)}
        answers = ask_needs(handler, op, needed, [{} for _ in op.inputs])
        keeps = [keep for needs in answers for keep in (needs or {}).values()]
        return any(1 < k.size < spot.size and k[unit] and k.sum() == 1 for k in keeps)

    return fits(0) and fits(-1)


def _needing_one(op: Op, handler: LayerHandler, number: int, after: Spot, probe: int) -> set[Spot]:
    """The inputs' spots of which one unit is needed, if the same one of an output's spot is."""
    unit = _one_hot(after.size, probe)
    needed: list[Needs | None] = [None] * len(op.outputs)
    needed[number] = {after.axis: unit}
    answers = ask_needs(handler, op, needed, [{} for _ in op.inputs])
    return {
        Spot(tensor, axis)
        for tensor, needs in zip(op.inputs, answers, strict=True)
        for axis, keep in (needs or {}).items()
        if np.array_equal(keep, unit)
    }


def _contracted(op: Op, handler: LayerHandler) -> Iterator[tuple[Spot, Spot]]:
    """Yields pairs of inputs' spots: where a unit of one is 0, that of the other is not needed.

    A query and a key are such: the products of their units are summed.
    """
    if len(set(op.inputs)) < 2 or len(getattr(op.operation, "weights", ())):
        return
    whole: list[Needs | None] = [{} for _ in op.outputs]
    for i, tensor in enumerate(op.inputs):
        for spot in _spots(tensor):
            others = None
            for probe in range(PROBES):
                unit = _one_hot(spot.size, probe)
                known: list[Known] = [{} for _ in op.inputs]
                known[i] = {spot.axis: np.where(unit, 0.0, np.nan)}
                found = _lacking(op, ask_needs(handler, op, whole, known), i, ~unit)
                others = found if others is None else others & found
                if not others:
                    break
            for other in others or ():
                yield spot, other


def _lacking(op: Op, answers: list[Needs | None], i: int, keep: np.ndarray) -> set[Spot]:
    return {
        Spot(tensor, axis)
        for j, (tensor, needs) in enumerate(zip(op.inputs, answers, strict=True))
        if j != i
        for axis, each in (needs or {}).items()
        if np.array_equal(each, keep)
    }


def _shared(program: Program) -> Iterator[tuple[Spot, Spot]]:
    """Yields what the weights of a shared layer couple; axes are counted from the end."""
    first: dict[int, Op] = {}
    for op in program.ops:
        if not op.shared:
            continue
        other = first.setdefault(id(op.operation), op)
        pairs = zip(op.inputs + op.outputs, other.inputs + other.outputs, strict=False)
        for a, b in pairs:
            here = {spot.axis - a.rank: spot for spot in _spots(a)}
            there = {spot.axis - b.rank: spot for spot in _spots(b)}
            for axis in here.keys() & there.keys():
                if here[axis].size == there[axis].size:
                    yield here[axis], there[axis]


def _spots(tensor: Tensor) -> list[Spot]:
    sizes = enumerate(tensor.shape)
    return [Spot(tensor, axis) for axis, n in sizes if axis > 0 and n is not None and n > 1]


def _one_hot(size: int, unit: int) -> np.ndarray:
    hot = np.zeros(size, bool)
    hot[unit % size] = True
    return hot


class _Forest:
    """Union-find over spots."""

    def __init__(self) -> None:
        self._parents: dict[Spot, Spot] = {}

    def root(self, spot: Spot) -> Spot:
        path = []
        while spot in self._parents:
            path.append(spot)
            spot = self._parents[spot]
        self._parents.update(dict.fromkeys(path, spot))
        return spot

    def join(self, a: Spot, b: Spot) -> None:
        a, b = self.root(a), self.root(b)
        if a != b:
            self._parents[a] = b
