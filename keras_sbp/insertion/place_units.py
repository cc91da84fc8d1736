"""Which units get a gate: one for each group of coupled units that can go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_sbp.insertion.gates import Gate, axis_of
from keras_sbp.insertion.plan import Placement, Plan, Refusal
from keras_sbp.insertion.redundant_gates import without_redundant
from keras_sbp.insertion.sites import CannotGateError, SiteSearch
from keras_sbp.program import Op
from keras_sbp.program.checks import ask_computes
from keras_sbp.program.coupling import CoupledUnits, Spot, coupled_units, makes_several_of_one
from keras_sbp.program.facts import unit_axes
from keras_sbp.program.handler import kind
from keras_sbp.program.removal import UNIT, Site, Trials
from keras_sbp.program.units import Needs, kept


@dataclass(frozen=True)
class Wishes:
    """What the user asked for; see `insert_sbp`."""

    placement: str = "activation"
    attention: str | None = "heads"
    tie_residual: bool = False


def place_unit_gates(trials: Trials, wishes: Wishes) -> Plan:
    """Returns one gate for each group of coupled units that can be removed."""
    plan = Plan()
    stands_for: dict[Spot, list[Op]] = {}
    for group in coupled_units(trials.program, trials.handlers):
        producers = _producers(group, trials) or _normalised(group, stands_for)
        gate = _existing_gate(group, producers)
        if gate is not None:
            plan.existing.append(gate)
            if producers:
                plan.refusals.append(Refusal(producers, f"gate '{gate.name}' is there already"))
            continue
        group_kind = _kind(group, producers, trials)
        if not producers or not _is_wanted(group_kind, group, wishes):
            continue
        try:
            _refuse_hopeless(trials, group)
            plan.placements.append(_place(trials, group, producers, group_kind, wishes))
        except CannotGateError as error:
            plan.refusals.append(Refusal(producers, str(error)))
            if len(group.sources) == 1:
                stands_for |= dict.fromkeys(_behind(error.blockers, group), producers)
    plan.placements = without_redundant(plan.placements, plan.existing, trials)
    return plan


def place_existing_gates(trials: Trials) -> dict[Gate, Placement]:
    """Returns what each gate of a program governs; not those over whole tensors."""
    found: dict[Gate, Placement] = {}
    for group in coupled_units(trials.program, trials.handlers):
        producers = _producers(group, trials)
        for gate, sites in _gates(group).items():
            found[gate] = _existing(group, producers, gate.name, sites)
    return found


def units_of(layer: Any, shape: tuple[int | None, ...]) -> int:
    """Returns how many units an output of a layer has."""
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    return shape[1 if first else -1] or 0


def _producers(group: CoupledUnits, trials: Trials) -> list[Op]:
    """The layers that make the units with weights of their own, in order."""
    found = []
    for spot in group.sources:
        op = group.makers.get(spot)
        if op is None or spot.tensor is not op.outputs[0]:
            continue
        if spot.axis in _unit_axes(op, trials):
            found.append(op)
    return list(dict.fromkeys(found))


def _unit_axes(op: Op, trials: Trials) -> list[int]:
    if op not in trials.opaque:
        return unit_axes(op)
    return [op.outputs[0].rank - 1] if getattr(op.operation, "weights", ()) else []


def _normalised(group: CoupledUnits, stands_for: dict[Spot, list[Op]]) -> list[Op]:
    """A normalisation that mixes the units of one layer stands for that layer.

    The layer itself stays whole then, but what reads the normalised units shrinks.
    """
    return stands_for.get(group.sources[0], []) if len(group.sources) == 1 else []


def _behind(blockers: Sequence[Op], group: CoupledUnits) -> Iterator[Spot]:
    """Yields where a group's units come out of normalisations: not, say, its positions."""
    axes = {spot.tensor: spot.axis for spot in group.spots}
    for op in blockers:
        is_alike = [t.shape for t in op.inputs] == [t.shape for t in op.outputs]
        if is_alike and op.inputs[0] in axes:
            yield Spot(op.outputs[0], axes[op.inputs[0]])


def _existing_gate(group: CoupledUnits, producers: list[Op]) -> Placement | None:
    """The gates that the model has for these units, as one."""
    gates = _gates(group)
    if not gates:
        return None
    sites = [site for each in gates.values() for site in each]
    return _existing(group, producers, next(iter(gates)).name, sites)


def _gates(group: CoupledUnits) -> dict[Gate, list[Site]]:
    gates: dict[Gate, list[Site]] = {}
    for spot, op in group.makers.items():
        if isinstance(op.operation, Gate) and axis_of(op) == spot.axis:
            gates.setdefault(op.operation, []).append(Site(spot.tensor, spot.axis))
    return gates


def _existing(group: CoupledUnits, producers: list[Op], name: str, sites: list[Site]) -> Placement:
    ops = list(dict.fromkeys(group.makers.values()))
    return Placement(name, list(producers), sites, sites[0].axis, ops, group)


def _kind(group: CoupledUnits, producers: list[Op], trials: Trials) -> str:
    """Layers that make several axes of units at once are those of attention."""
    for spot in group.sources:
        op = group.makers.get(spot)
        if op in producers:
            axes = _unit_axes(op, trials)
            if len(axes) > 1:
                return "heads" if spot.axis == axes[0] else "width"
    return "units"


def _is_wanted(group_kind: str, group: CoupledUnits, wishes: Wishes) -> bool:
    if group_kind == "heads":
        return wishes.attention is not None
    if group_kind == "width":
        return wishes.attention == "heads+width" and group.contracts
    return True


def _place(
    trials: Trials, group: CoupledUnits, producers: list[Op], group_kind: str, wishes: Wishes
) -> Placement:
    search = SiteSearch(group, trials)
    sites = search.find(tie_residual=wishes.tie_residual)
    spots = [Spot(site.tensor, site.axis) for site in sites if site.axis is not None]
    behind = {group.makers[source] for spot in spots for source in search.origins[spot]}
    chosen = [op for op in producers if op in behind] or list(producers)
    if wishes.placement == "layer" and group_kind == "units":
        spots = [spot for spot in group.sources if group.makers[spot] in chosen] or spots
        sites = [Site(spot.tensor, spot.axis) for spot in spots]
    axis = _common_axis(spots)
    name = _name(chosen[0], group_kind)
    return Placement(name, chosen, sites, axis, search.ops, group)


def _name(producer: Op, group_kind: str) -> str:
    if group_kind == "units":
        return f"{producer.name}_gate"
    attention = producer.path.rstrip("/") or producer.name
    return f"{attention}_{group_kind}_gate"


def _refuse_hopeless(trials: Trials, group: CoupledUnits) -> None:
    for spot in group.spots:
        op = group.makers.get(spot)
        if spot.tensor in trials.program.inputs:
            raise CannotGateError("its units are coupled to an input of the model")
        if spot.tensor in trials.program.outputs:
            raise CannotGateError("its units are an output of the model")
        if op is not None and op in trials.opaque:
            raise CannotGateError(f"'{op.name}' is opaque: {trials.opaque[op]}")
    for spot in group.sources:
        op = group.makers[spot]
        if unit_axes(op) and makes_several_of_one(op, trials.handlers[op], spot):
            raise CannotGateError(
                f"'{op.name}' makes several units of one, which can only go together; the gate of "
                "what it reads governs them"
            )
        if _needs_itself(spot, op, trials):
            raise CannotGateError(
                f"'{op.name}' ({kind(op)}) computes all of its units as long as one of them stays"
            )


def _needs_itself(spot: Spot, op: Op, trials: Trials) -> bool:
    """Tells whether an op computes a unit although no reader needs it."""
    keep = np.ones(spot.size, bool)
    keep[UNIT] = False
    needed: list[Needs | None] = [
        {spot.axis: keep} if tensor is spot.tensor else None for tensor in op.outputs
    ]
    units = ask_computes(trials.handlers[op], op, needed)[op.outputs.index(spot.tensor)]
    return units is not None and bool(kept(units, spot.axis, spot.size)[UNIT])


def _common_axis(spots: Sequence[Spot]) -> int:
    """How one gate counts its axis at all its places."""
    from_start = {spot.axis for spot in spots}
    from_end = {spot.axis - spot.tensor.rank for spot in spots}
    if from_end == {-1}:
        return -1
    if len(from_start) == 1:
        return from_start.pop()
    if len(from_end) == 1:
        return from_end.pop()
    raise CannotGateError("its units lie along different axes where they are used")
