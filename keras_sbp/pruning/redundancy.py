"""Gates that would decide twice about the same units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from keras_sbp.graph import Tensor
from keras_sbp.graph.units import Known
from keras_sbp.graph.what_if import Site, WhatIf
from keras_sbp.pruning.plan import Placement


def without_redundant(
    placements: Sequence[Placement], existing: Sequence[Placement], what_if: WhatIf
) -> list[Placement]:
    """Leaves one gate where two would decide about the same units, each in its own count.

    A depthwise convolution with a multiplier makes several channels of one: the gate in front of
    it can remove them all, one behind it could remove none alone. Several query heads share a
    key-value head, but not all that they are made from: their gate is the one that stays.

    Args:
        placements: gates to be; those that stay take over the producers of those that do not.
        existing: gates that the model has already; they stay.
        what_if: of the program.
    """
    left = list(placements)
    for placement in [*existing, *placements]:
        if placement not in left and placement not in existing:
            continue
        others = _removing_the_same(placement, [*existing, *left], what_if)
        made_of_it = [other for other in others if other in left and _is_made_of(other, placement)]
        if made_of_it:
            dropped, staying = made_of_it, [placement]
        elif others and placement in left:
            dropped, staying = [placement], others
        else:
            continue
        left = [each for each in left if each not in dropped]
        for each in staying:
            each.producers.extend(op for gone in dropped for op in gone.producers)
    return left


def _removing_the_same(
    placement: Placement, others: Sequence[Placement], what_if: WhatIf
) -> list[Placement]:
    """The gates that together can remove a unit of this one; none if they cannot."""
    alive = what_if.remove(placement.sites, placement.ops, zeros=True)
    seen = {op.inputs[i]: known for (op, i), known in alive.known.items()}
    met = {other: _met(other, seen) for other in others if other is not placement}
    met = {other: sites for other, sites in met.items() if sites}
    sites = [site for each in met.values() for site in each]
    ops = [op for each in [placement, *met] for op in each.ops]
    outcome = what_if.remove(sites, ops)
    if sites and all(outcome.frees(source) for source in placement.group.sources):
        return list(met)
    return []


def _met(other: Placement, seen: Mapping[Tensor, Known]) -> list[Site]:
    """The sites of a gate at which units are known to be 0, and these units."""
    sites = []
    for site in other.sites:
        constant = seen.get(site.tensor, {}).get(site.axis)
        if constant is not None:
            sites.append(replace(site, removed=tuple(np.flatnonzero(constant == 0))))
    return sites


def _is_made_of(later: Placement, earlier: Placement) -> bool:
    """Tells whether all units of one gate are computed from those of another alone."""
    units = {tensor for op in earlier.ops for tensor in op.outputs}
    makers = [op for op in later.ops if any(s.tensor in op.outputs for s in later.group.sources)]
    return all(units.issuperset(op.inputs) for op in makers)
