"""What a unit costs in multiply-accumulates, so that expensive ones go first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_sbp.insertion.plan import Placement
from keras_sbp.program import Op, macs
from keras_sbp.program.removal import Outcome, Trials


def weights_by_macs(placements: Sequence[Placement], trials: Trials) -> list[float]:
    """Returns KL weights in proportion to what one unit of each gate costs.

    They are normalised so that their mean over all units of these gates is 1: the KL as a whole
    weighs as much as with a weight of 1 everywhere.
    """
    costs = np.array([_cost(placement, trials) for placement in placements])
    units = np.array([placement.units for placement in placements])
    mean = (costs * units).sum() / units.sum()
    return [1.0] * len(placements) if mean == 0 else [float(cost / mean) for cost in costs]


def _cost(placement: Placement, trials: Trials) -> float:
    """The multiply-accumulates per example that one unit costs."""
    return sum(macs(op) * share for op, share in shares(placement, trials).items())


def shares(placement: Placement, trials: Trials) -> dict[Op, float]:
    """Returns which part of each layer goes with one unit of a gate.

    Those are the layers that make the unit, the depthwise convolutions and normalisations that
    it passes, and the layers that read it.
    """
    if placement.group is None:
        return dict.fromkeys(placement.ops, 1.0)
    outcome = trials.remove(placement.sites, placement.ops, zeros=True)
    own = {spot.tensor: spot for spot in placement.group.spots}
    found = {}
    for op in {op for op, _ in outcome.edges}:
        made = [own[t] for t in op.outputs if t in own and outcome.frees(own[t])]
        each = [1 / spot.size for spot in made]
        each += [_share_read(outcome, op, i) for i in range(len(op.inputs))]
        if each and max(each) > 0:
            found[op] = max(each)
    return found


def _share_read(outcome: Outcome, op: Op, number: int) -> float:
    """The part of an input that is 0 and not needed."""
    needs = outcome.edges[op, number]
    if needs is None:
        return 1.0
    shares = [0.0]
    for axis, constant in outcome.known.get((op, number), {}).items():
        gone = ~np.isnan(constant) & ~needs.get(axis, np.ones(constant.size, bool))
        shares.append(gone.sum() / constant.size)
    return max(shares)
