"""Which units get a gate: one for each group of coupled units that can go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from keras import layers

from keras_sbp.graph import Analysis, Graph, Op, Tensor
from keras_sbp.graph.coupling import Group, Spot, coupled_units
from keras_sbp.graph.handler import LayerHandler
from keras_sbp.graph.handlers.einsum_roles import Roles
from keras_sbp.graph.units import Known, Needs
from keras_sbp.graph.what_if import Site, WhatIf
from keras_sbp.layers import SBPLayer
from keras_sbp.pruning.sites import CannotGateError, SiteSearch


@dataclass(frozen=True, eq=False)
class Placement:
    """One gate to be.

    Attributes:
        name: of the gate, not yet unique.
        producers: the layers whose units it gates.
        sites: where it is called.
        axis: the gate's argument.
        ops: all that goes on between the units' sources and their readers.
        group: the units; None if the gate is for a whole branch.
    """

    name: str
    producers: list[Op]
    sites: list[Site]
    axis: int | tuple[()]
    ops: list[Op]
    group: Group | None = None

    @property
    def units(self) -> int:
        """How many units the gate has."""
        site = self.sites[0]
        return 1 if site.axis is None else site.tensor.shape[site.axis]


@dataclass(frozen=True)
class Refusal:
    """Why some layers get no gate."""

    producers: list[Op]
    reason: str


@dataclass
class Plan:
    """The gates to be, and why other layers get none."""

    placements: list[Placement] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


@dataclass(frozen=True)
class Wishes:
    """What the user asked for; see `insert_sbp`."""

    placement: str = "activation"
    attention: str | None = "heads"
    tie_residual: bool = False


class ExistingGate(LayerHandler):
    """A gate that the model has already: units pass, and 0 stays 0."""

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """Zeros stay; the gate's own decision is not asked for."""
        return [{axis: np.where(c == 0, 0.0, np.nan) for axis, c in inputs[0].items()}]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Each unit needs itself."""
        return [needed[0]]

    def rebuild(self, *args: object) -> list:
        """Is not asked for."""
        raise NotImplementedError


def what_if_of(graph: Graph, analysis: Analysis) -> WhatIf:
    """Returns trials on an analysed program, in which gates let units pass."""
    gates = {op: ExistingGate() for op in graph.ops if isinstance(op.operation, SBPLayer)}
    return WhatIf(graph, analysis.handlers | gates)


def place_unit_gates(graph: Graph, analysis: Analysis, what_if: WhatIf, wishes: Wishes) -> Plan:
    """Returns one gate for each group of coupled units that can be removed."""
    plan = Plan()
    stands_for: dict[Op, list[Op]] = {}
    for group in coupled_units(graph, what_if.handlers):
        producers = _producers(group, analysis) or _normalised(group, stands_for)
        group_kind = _kind(group, producers)
        if not producers or not _is_wanted(group_kind, group, wishes):
            continue
        try:
            _refuse_hopeless(graph, analysis, group)
            plan.placements.append(_place(what_if, group, producers, group_kind, wishes))
        except CannotGateError as error:
            plan.refusals.append(Refusal(producers, str(error)))
            if len(group.sources) == 1:
                tensors = {spot.tensor for spot in group.spots}
                stands_for |= {op: producers for op in error.blockers if op.inputs[0] in tensors}
    _drop_redundant(plan, what_if)
    return plan


def _drop_redundant(plan: Plan, what_if: WhatIf) -> None:
    """Leaves one gate where two would decide about the same units, each in its own count.

    A depthwise convolution with a multiplier makes several channels of one: the gate in front of
    it can remove them all, one behind it could remove none alone. Several query heads share a
    key-value head, but not all that they are made from: their gate is the one that stays.
    """
    for placement in list(plan.placements):
        if placement not in plan.placements:
            continue
        alive = what_if.remove(placement.sites, placement.ops, zeros=True)
        seen = {op.inputs[i]: known for (op, i), known in alive.known.items()}
        others = {
            other: met
            for other in plan.placements
            if other is not placement and (met := _met(other, seen))
        }
        sites = [site for met in others.values() for site in met]
        ops = [op for each in [placement, *others] for op in each.ops]
        outcome = what_if.remove(sites, ops)
        if not sites or not all(outcome.frees(source) for source in placement.group.sources):
            continue
        made_of_it = [other for other in others if _is_made_of(other, placement)]
        for dropped in made_of_it or [placement]:
            plan.placements.remove(dropped)
            for kept in [placement] if made_of_it else others:
                kept.producers.extend(dropped.producers)


def _is_made_of(later: Placement, earlier: Placement) -> bool:
    """Tells whether all units of one gate are computed from those of another alone."""
    units = {tensor for op in earlier.ops for tensor in op.outputs}
    makers = [op for op in later.ops if any(s.tensor in op.outputs for s in later.group.sources)]
    return all(units.issuperset(op.inputs) for op in makers)


def _met(other: Placement, seen: Mapping[Tensor, Known]) -> list[Site]:
    """The sites of a gate at which units are known to be 0, and these units."""
    sites = []
    for site in other.sites:
        constant = seen.get(site.tensor, {}).get(site.axis)
        if constant is not None:
            sites.append(replace(site, removed=tuple(np.flatnonzero(constant == 0))))
    return sites


def unit_axes(op: Op) -> list[int]:
    """Returns the axes of an op's first output whose units have weights of their own."""
    weights = getattr(op.operation, "weights", ())
    if not any(len(weight.shape) > 1 for weight in weights):
        return []
    if isinstance(op.operation, layers.EinsumDense):
        roles = Roles.of(op)
        return sorted(roles.output.index(letter) for letter in roles.free)
    layer = getattr(op.operation, "layer", op.operation)  # inside of a wrapper
    if getattr(layer, "data_format", None) != "channels_first":
        return [op.outputs[0].rank - 1]
    has_steps = layer is not op.operation or getattr(layer, "return_sequences", False)
    return [2 if has_steps else 1]


def _producers(group: Group, analysis: Analysis) -> list[Op]:
    """The layers that make the units with weights of their own, in order."""
    found = []
    for spot in group.sources:
        op = group.makers.get(spot)
        if op is None or spot.tensor is not op.outputs[0]:
            continue
        if spot.axis in _unit_axes(op, analysis):
            found.append(op)
    return list(dict.fromkeys(found))


def _unit_axes(op: Op, analysis: Analysis) -> list[int]:
    if op not in analysis.opaque:
        return unit_axes(op)
    return [op.outputs[0].rank - 1] if getattr(op.operation, "weights", ()) else []


def _normalised(group: Group, stands_for: dict[Op, list[Op]]) -> list[Op]:
    """A normalisation that mixes the units of one layer stands for that layer.

    The layer itself stays whole then, but what reads the normalised units shrinks.
    """
    if len(group.sources) != 1:
        return []
    op = group.makers.get(group.sources[0])
    producers = stands_for.get(op, [])
    is_alike = op is not None and [t.shape for t in op.inputs] == [t.shape for t in op.outputs]
    return producers if is_alike else []


def _kind(group: Group, producers: list[Op]) -> str:
    """Layers that make several axes of units at once are those of attention."""
    for spot in group.sources:
        op = group.makers.get(spot)
        if op in producers:
            axes = unit_axes(op)
            if len(axes) > 1:
                return "heads" if spot.axis == axes[0] else "width"
    return "units"


def _is_wanted(group_kind: str, group: Group, wishes: Wishes) -> bool:
    if group_kind == "heads":
        return wishes.attention is not None
    if group_kind == "width":
        return wishes.attention == "heads+width" and group.contracts
    return True


def _place(
    what_if: WhatIf, group: Group, producers: list[Op], group_kind: str, wishes: Wishes
) -> Placement:
    search = SiteSearch(group, what_if)
    sites = search.find(tie_residual=wishes.tie_residual)
    spots = [Spot(site.tensor, site.axis) for site in sites]
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


def _refuse_hopeless(graph: Graph, analysis: Analysis, group: Group) -> None:
    for spot in group.spots:
        op = group.makers.get(spot)
        if spot.tensor in graph.inputs:
            raise CannotGateError("its units are coupled to an input of the model")
        if spot.tensor in graph.outputs:
            raise CannotGateError("its units are an output of the model")
        if isinstance(op.operation, SBPLayer):
            if _gates_axis(op.operation, spot):
                raise CannotGateError(f"gate '{op.name}' is there already")
        elif op in analysis.opaque:
            raise CannotGateError(f"'{op.name}' is opaque: {analysis.opaque[op]}")


def _gates_axis(gate: SBPLayer, spot: Spot) -> bool:
    return gate.axis != () and gate.axis % spot.tensor.rank == spot.axis


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
