"""A traced program with gates, as rules see it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_sbp.benchmarking.latency import LatencyYardstick
from keras_sbp.evidence.gradients import squared_gradients
from keras_sbp.evidence.moments import Weights
from keras_sbp.evidence.refit import reweight, select_units
from keras_sbp.insertion.costs import shares
from keras_sbp.insertion.gates import Gate, gates_of, with_decisions
from keras_sbp.insertion.gates_report import existing_gates
from keras_sbp.insertion.plan import Placement
from keras_sbp.layers import SBPLayer
from keras_sbp.program import Op, Program, analyse, macs, read
from keras_sbp.program.constants import constant_tensors, fold_constants
from keras_sbp.program.coupling import CoupledUnits
from keras_sbp.program.facts import kernel_rows, normalization_scale
from keras_sbp.program.rebuild import rebuild
from keras_sbp.program.removal import Trials
from keras_sbp.rules import Costs, Network, PerUnit, UnitGroup
from keras_sbp.rules.least_squares import Selection


class ProgramNetwork(Network):
    """What rules are asked about.

    Args:
        program: a traced program; its gates are the groups.
        loss: the loss that the user's model is compiled with, if any.
        round_to: see `prune`.
    """

    def __init__(self, program: Program, *, loss: Any = None, round_to: int = 1) -> None:
        self.program, self.loss, self.round_to = program, loss, round_to
        self._costs: dict[str, Costs] = {}
        self._look_at_gates()

    def _look_at_gates(self) -> None:
        self._gates = {_group(gate): gate for gate in gates_of(self.program)}
        self.groups = list(self._gates)

    def as_it_is_now(self) -> ProgramNetwork:
        """Returns the same network with the posteriors and frozen units that its gates have now.

        What it has found out about costs, which is most of the work, holds for the new one too.
        """
        network = copy.copy(self)
        network._look_at_gates()
        return network

    def gate_of(self, group: UnitGroup) -> Gate:
        """Returns the gate that a group stands for."""
        return self._gates[group]

    def groups_of(self, name: str) -> list[UnitGroup]:
        """Returns the units of the gate, or those that the layer makes, that has this name."""
        found = []
        for group, gate in self._gates.items():
            placement = self._placement(group)
            made_by = [op.operation.name for op in placement.producers] if placement else []
            if name in (gate.name, *made_by):
                found.append(group)
        return found

    def kernels(self, group: UnitGroup) -> Sequence[np.ndarray]:
        """Returns the kernels of the layers that make the units."""
        placement = self._placement(group)
        if placement is None or placement.group is None:
            return []
        return list(_kernels(placement.group, placement.producers).values())

    def normalization_scale(self, group: UnitGroup) -> np.ndarray | None:
        """Returns gamma of the last BatchNormalization in front of the gate."""
        placement = self._placement(group)
        for op in reversed(_in_front(placement) if placement else []):
            scale = normalization_scale(op)
            if scale is not None:
                return scale
        return None

    def squared_gradients(self, data: Any, loss: Any, batch_size: int) -> PerUnit:
        """Returns (∂loss/∂θ)² for each unit, averaged over batches."""
        gates = list(self._gates.values())
        found = squared_gradients(self.program, gates, data, loss or self.loss, batch_size)
        return {group: found[gate] for group, gate in self._gates.items()}

    def input_change(
        self, data: Any, wanted: Mapping[UnitGroup, int] | None, **options: Any
    ) -> dict[UnitGroup, Selection | None]:
        """Returns each group's units in the order in which its readers want them."""
        by_gate = None
        if wanted is not None:
            by_gate = {self._gates[group]: count for group, count in wanted.items()}
        gates = list(self._gates.values())
        found = select_units(self._trials, gates, data, by_gate, **options)
        return {group: found[gate] for group, gate in self._gates.items()}

    def costs(self, what: str) -> Costs:
        """Returns what each layer costs, and each unit's share of that."""
        if what not in self._costs:
            self._costs[what] = self._table_of_costs(what)
        return self._costs[what]

    def _table_of_costs(self, what: str) -> Costs:
        costs = np.array(_costs_by_op(self.program, what), float)
        numbers = {op: number for number, op in enumerate(self.program.ops)}
        table = np.zeros((len(self.groups), len(costs)))
        for row, group in zip(table, self.groups, strict=True):
            placement = self._placement(group)
            for op, share in shares(placement, self._trials).items() if placement else ():
                row[numbers[op]] = share
        used = costs > 0
        return Costs(costs[used], table[:, used])

    def remaining(self, what: str, keep: PerUnit) -> float:
        """Returns the fraction that a network with these decisions really has, or takes."""
        decided = with_decisions(self.program, {self._gates[g]: kept for g, kept in keep.items()})
        analysis = analyse(decided)
        if not constant_tensors(decided, analysis).isdisjoint(decided.outputs):
            return 0.0
        small = rebuild(*fold_constants(decided, analysis)).model
        if what == "latency":
            return self._yardstick.fraction(small)
        return _total(small, what) / _total(self._whole, what)

    def reweighted(self, decisions: Mapping[Gate, np.ndarray], data: Any) -> Weights:
        """Returns new values for variables of the traced model; see `reweight`."""
        return reweight(self._trials, decisions, data)

    @functools.cached_property
    def _trials(self) -> Trials:
        return Trials(self.program)

    @functools.cached_property
    def _placements(self) -> dict[Gate, Placement]:
        return existing_gates(self._trials)

    def _placement(self, group: UnitGroup) -> Placement | None:
        return self._placements.get(self._gates[group])

    @functools.cached_property
    def _whole(self) -> keras.Model:
        """The network with all units, and without gates."""
        everything = {gate: np.ones(gate.units, bool) for gate in self._gates.values()}
        decided = with_decisions(self.program, everything)
        return rebuild(decided, analyse(decided)).model

    @functools.cached_property
    def _yardstick(self) -> LatencyYardstick:
        return LatencyYardstick(self._whole)


def _group(gate: Gate) -> UnitGroup:
    is_branch = gate.axis is None
    if not isinstance(gate, SBPLayer):
        return UnitGroup(gate.name, gate.units, is_branch=is_branch)
    return UnitGroup(gate.name, gate.units, gate.posterior, gate.rule, is_branch, gate.alive)


def _kernels(group: CoupledUnits, producers: list[Op]) -> dict[int, np.ndarray]:
    """The kernels that make a group's units, one row per unit, by id of the layer."""
    found = {}
    for spot in group.sources:
        op = group.makers.get(spot)
        if op is None or op not in producers:
            continue
        rows = kernel_rows(op, spot.axis)
        if rows is not None:
            found[id(op.operation)] = rows
    return found


def _costs_by_op(program: Program, what: str) -> list[int]:
    """What each call costs; the weights of a shared layer count at its first call."""
    if what == "macs":
        return [macs(op) for op in program.ops]
    seen: set[int] = set()
    costs = []
    for op in program.ops:
        is_first = id(op.operation) not in seen
        seen.add(id(op.operation))
        counts = is_first and isinstance(op.operation, layers.Layer)
        costs.append(op.operation.count_params() if counts else 0)
    return costs


def _total(model: keras.Model, what: str) -> int:
    return sum(_costs_by_op(read(model), what))


def _in_front(placement: Placement) -> list[Op]:
    """The ops between the layers that make the units and the first place of the gate."""
    gated = placement.sites[0].tensor
    before = []
    for op in placement.ops:
        if gated in op.outputs:
            break
        before.append(op)
    return before
