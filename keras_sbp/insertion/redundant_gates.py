"""Gates that would decide twice about the same units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from keras_sbp.insertion.plan import Placement
from keras_sbp.program import Tensor
from keras_sbp.program.removal import Site, Trials
from keras_sbp.program.units import Known


def without_redundant(
    placements: Sequence[Placement], existing: Sequence[Placement], trials: Trials
) -> list[Placement]:
    """Drops gates whose units other gates remove, each by several units of theirs.

    Where several query heads share a key-value head, the gate of the query heads is enough: the
    key-value head goes with the last of them.

    Args:
        placements: gates to be; those that stay take over the producers of those that do not.
        existing: gates that the model has already.
        trials: of the program.
    """
    left = list(placements)
    for placement in placements:
        others = _removing_the_same(placement, [*existing, *left], trials)
        if others:
            left.remove(placement)
            for other in others:
                other.producers.extend(placement.producers)
    return left


def _removing_the_same(
    placement: Placement, others: Sequence[Placement], trials: Trials
) -> list[Placement]:
    """The gates that together can remove a unit of this one; none if they cannot."""
    alive = trials.remove(placement.sites, placement.ops, zeros=True)
    seen = {op.inputs[i]: known for (op, i), known in alive.known.items()}
    met = {other: _met(other, seen) for other in others if other is not placement}
    met = {other: sites for other, sites in met.items() if sites}
    sites = [site for each in met.values() for site in each]
    sources = placement.group.sources if placement.group is not None else []
    ops = [op for each in [placement, *met] for op in each.ops]
    outcome = trials.remove(sites, ops)
    if sites and sources and all(outcome.frees(source) for source in sources):
        return list(met)
    return []


def _met(other: Placement, seen: Mapping[Tensor, Known]) -> list[Site]:
    """The sites of a gate at which units are known to be 0, and these units."""
    sites = []
    for site in other.sites:
        known = seen.get(site.tensor, {})
        constant = None if site.axis is None else known.get(site.axis)
        if constant is not None:
            sites.append(replace(site, removed=tuple(np.flatnonzero(constant == 0))))
    return sites
