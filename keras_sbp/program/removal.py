"""What would go if a gate removed one unit: tried on the program, without building anything."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_sbp.program.analysis import find_handlers
from keras_sbp.program.checks import ask_needs, ask_values
from keras_sbp.program.coupling import Spot
from keras_sbp.program.program import Op, Program, Tensor
from keras_sbp.program.units import Known, Needs, constant_everywhere, union

UNIT = -1  # the one that is removed; not the first, which weights that are all 0 would keep

# Stands for the constant that a removed unit may become behind a bias: weights that are 0 now
# need not be 0 after training.
SOME_CONSTANT = 0.7

Edge = tuple[Op, int]


@dataclass(frozen=True)
class Site:
    """A place for a gate: a tensor as all its readers see it, or as some do.

    Attributes:
        tensor: what is gated.
        axis: along which its units lie; None for the whole tensor.
        readers: (op, input number) of those that read behind the gate; None for all.
        removed: the units that the trial removes.
    """

    tensor: Tensor
    axis: int | None
    readers: frozenset[Edge] | None = None
    removed: tuple[int, ...] = (UNIT,)

    def is_seen_by(self, op: Op, number: int) -> bool:
        """Tells whether an op reads its input of this number behind the gate."""
        return self.readers is None or (op, number) in self.readers


@dataclass
class Outcome:
    """What is known and needed where a unit is removed.

    Attributes:
        needed: tensor → needs of its readers; None where nothing of it is needed.
        edges: (op, input number) → what this op needs of this input.
        known: the constants that each op sees, by edge.
    """

    needed: dict[Tensor, Needs | None]
    edges: dict[Edge, Needs | None]
    known: dict[Edge, Known]

    def frees(self, spot: Spot) -> bool:
        """Tells whether the unit is needed no more at a spot."""
        needs = self.needed.get(spot.tensor, {})
        return needs is None or (spot.axis in needs and not needs[spot.axis][UNIT])


class Trials:
    """Removes units on trial; remembers what handlers answered.

    Args:
        program: a traced program.

    Attributes:
        program: the same.
        handlers: op → the handler that answers for it.
        opaque: op → why it is opaque; only opaque ops are there.
        order: op → its place in the program.
        readers: tensor → (op, input number) of those that read it.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.handlers, self.opaque = find_handlers(program)
        self._outputs = set(program.outputs)
        self._answers: dict[Hashable, Any] = {}
        self.order = {op: number for number, op in enumerate(program.ops)}
        self.readers: dict[Tensor, list[Edge]] = {}
        for op in program.ops:
            for i, tensor in enumerate(op.inputs):
                self.readers.setdefault(tensor, []).append((op, i))

    def remove(self, sites: Sequence[Site], among: Iterable[Op], *, zeros: bool = False) -> Outcome:
        """Returns the outcome of removing one unit at all of these sites together.

        Args:
            sites: where gates stand.
            among: ops of interest; they are asked for their needs even if no constant reaches
                them.
            zeros: takes every constant for 0, so that nothing is lost at padded borders.
        """
        known, reached = self._forward(sites, zeros)
        region = sorted(reached.union(among), key=self.order.__getitem__)
        needed, edges = self._backward(region, known)
        return Outcome(needed, edges, known)

    def _forward(self, sites: Sequence[Site], zeros: bool) -> tuple[dict[Edge, Known], set[Op]]:
        """Follows the removed unit to where nothing is known of it any more."""
        gated: dict[Edge, Known] = {}
        for site in sites:
            readers = self.readers.get(site.tensor, []) if site.readers is None else site.readers
            for edge in readers:
                gated.setdefault(edge, {}).update(_zero(site))
        tensors: dict[Tensor, Known] = {}
        known: dict[Edge, Known] = {}
        waiting = [(self.order[op], op) for op in {op for op, _ in gated}]
        heap = [number for number, _ in waiting]
        ops = dict(waiting)
        heapq.heapify(heap)
        reached = set()
        while heap:
            op = ops[heapq.heappop(heap)]
            reached.add(op)
            inputs = []
            for i, tensor in enumerate(op.inputs):
                known[op, i] = tensors.get(tensor, {}) | gated.get((op, i), {})
                inputs.append(known[op, i])
            for tensor, result in zip(op.outputs, self._values(op, inputs, zeros), strict=True):
                tensors[tensor] = result
                for reader, _ in self.readers.get(tensor, ()) if result else ():
                    if self.order[reader] not in ops:
                        ops[self.order[reader]] = reader
                        heapq.heappush(heap, self.order[reader])
        return known, reached

    def _values(self, op: Op, inputs: list[Known], zeros: bool) -> list[Known]:
        """What removal makes constant, beside what is constant anyway."""
        before = self._ask(ask_values, op, [{} for _ in op.inputs])
        after = self._ask(ask_values, op, inputs)
        results = []
        for old, new in zip(before, after, strict=True):
            known = {}
            for axis, constant in new.items():
                varied = np.isnan(old[axis]) if axis in old else True
                fresh = np.where(varied, constant, np.nan)
                if zeros or _shifts(op):
                    fresh = np.where(np.isnan(fresh), np.nan, 0.0 if zeros else SOME_CONSTANT)
                if not np.isnan(fresh).all():
                    known[axis] = fresh
            results.append(known)
        return results

    def _backward(
        self, region: list[Op], known: dict[Edge, Known]
    ) -> tuple[dict[Tensor, Needs | None], dict[Edge, Needs | None]]:
        inside = set(region)
        needed: dict[Tensor, Needs | None] = {}
        edges: dict[Edge, Needs | None] = {}

        def of(tensor: Tensor) -> Needs | None:
            if tensor in self._outputs:
                return {}
            readers = self.readers.get(tensor, ())
            return union([edges[e] if e[0] in inside else {} for e in readers])

        for op in reversed(region):
            outputs = [of(tensor) for tensor in op.outputs]
            needed.update(zip(op.outputs, outputs, strict=True))
            inputs = [known.get((op, i), {}) for i in range(len(op.inputs))]
            answers = [None] * len(op.inputs)
            if any(each is not None for each in outputs):
                answers = self._ask(ask_needs, op, outputs, inputs)
            edges.update({(op, i): each for i, each in enumerate(answers)})
        return needed, edges

    def _ask(self, question: Callable, op: Op, *arguments: list) -> Any:
        """A handler has no state, so it answers a question twice alike."""
        key = (question, op, *(_frozen(each) for argument in arguments for each in argument))
        if key not in self._answers:
            self._answers[key] = question(self.handlers[op], op, *arguments)
        return self._answers[key]


def _zero(site: Site) -> Known:
    if site.axis is None:
        return constant_everywhere(0.0, site.tensor.shape)
    constant = np.full(site.tensor.size(site.axis), np.nan)
    constant[list(site.removed)] = 0.0
    return {site.axis: constant}


def _shifts(op: Op) -> bool:
    """Tells whether training may move the constant that the op makes of a 0."""
    names = [weight.name for weight in getattr(op.operation, "weights", ())]
    return any(name.endswith(("bias", "beta", "mean")) for name in names)


def _frozen(arrays: dict[int, np.ndarray] | None) -> Hashable:
    if arrays is None:
        return None
    return tuple((axis, array.tobytes()) for axis, array in sorted(arrays.items()))
