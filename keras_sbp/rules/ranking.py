"""From importance to decisions: how many units of a group stay, and in which order they go."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence

import numpy as np

from keras_sbp.rules.network import Costs, PerUnit, UnitGroup


class Across(enum.Enum):
    """How units of different groups compare, when all of a network are ranked together.

    Attributes:
        AS_IT_IS: By their importance: one threshold for the whole network.
        PER_COST: By what they are worth for what they cost. Where the importance is negative,
            removal is a gain, and the unit with the largest product of gain and cost goes first.
        RELATIVE_PER_COST: Like `PER_COST`, with an importance that is divided by its sum over the
            units that are left in the group, and counts once for each layer that makes them. A
            network is a product of layers: where one loses units, those of its neighbours get
            cheaper, and it alone would go on losing them if what is left were not worth more.
    """

    AS_IT_IS = "as it is"
    PER_COST = "per cost"
    RELATIVE_PER_COST = "relative per cost"


def most_important(importance: np.ndarray, count: int) -> np.ndarray:
    """Returns which units stay if `count` do: the most important, the first of equals.

    Units of unknown (NaN) importance stay in any case.

    Args:
        importance: shape (units,).
        count: how many stay.
    """
    ranked = np.argsort(-_known(importance), kind="stable")
    keep = np.isnan(importance)
    keep[ranked[:count]] = True
    return keep


def rounded_up(
    keep: PerUnit, importance: Mapping[UnitGroup, np.ndarray], multiple: int
) -> dict[UnitGroup, np.ndarray]:
    """Brings the most important of the dropped units back until each count is a multiple.

    A group of which nothing stays is left so, and none gets more units than it has: frozen ones
    do not come back.
    """
    result = {}
    for group, kept in keep.items():
        count = min(math.ceil(kept.sum() / multiple) * multiple, np.count_nonzero(group.alive))
        first = np.where(kept, np.inf, _known(importance[group]))
        first = np.where(group.alive, first, -np.inf)
        result[group] = most_important(first, count) if kept.sum() < count else kept
    return result


def removal_order(
    importance: Sequence[np.ndarray],
    costs: Costs,
    across: Across = Across.PER_COST,
    *,
    layers: Sequence[int] | None = None,
    at_least: Sequence[int] | None = None,
) -> list[tuple[int, int]]:
    """Returns (group number, unit) in the order in which units are to go.

    A unit's cost is what its layers would get cheaper by if it went now: it falls as units of the
    layers beside it go. Units that cost nothing do not go.

    Args:
        importance: of each group's units; NaN for those that stay.
        costs: with all units there.
        across: how units of different groups compare.
        layers: by how many layers each group's units are made; None means one. It counts where
            importance is relative.
        at_least: for each group, how many units stay; None means one of each.
    """
    relative = across is Across.RELATIVE_PER_COST
    made_by = np.array(layers) if relative and layers is not None else np.ones(len(importance))
    at_least = [1] * len(importance) if at_least is None else at_least
    waiting = [_removable(*each) for each in zip(importance, at_least, strict=True)]
    left = np.array([np.nansum(each) if relative else 1.0 for each in importance])
    gone = np.zeros(len(importance))
    order = []
    while any(len(units) for units in waiting):
        worth = made_by / np.where(left == 0.0, 1.0, left)
        keys = [
            _key(worth[number] * importance[number][units[0]], cost, across)
            if len(units)
            else np.inf
            for number, (units, cost) in enumerate(zip(waiting, costs.of_next(gone), strict=True))
        ]
        number = int(np.argmin(keys))
        if keys[number] == np.inf:
            break  # what is left costs nothing
        order.append((number, int(waiting[number][0])))
        if relative:
            left[number] -= importance[number][waiting[number][0]]
        waiting[number] = waiting[number][1:]
        gone[number] += 1
    return order


def _removable(importance: np.ndarray, at_least: int) -> np.ndarray:
    """The units from the least important on; those that are not known stay."""
    ranked = np.argsort(importance, kind="stable")  # NaN last
    known = np.count_nonzero(~np.isnan(importance))
    return ranked[: max(0, min(known, importance.size - at_least))]


def _key(importance: float, cost: float, across: Across) -> float:
    if across is Across.AS_IT_IS:
        return importance if cost > 0 else np.inf
    if importance <= 0:
        return importance * cost
    return importance / cost if cost > 0 else np.inf


def _known(importance: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(importance), np.inf, importance)
