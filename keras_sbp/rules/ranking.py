"""From importance to decisions: how many units of a group stay, and in which order they go."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from keras_sbp.rules.network import Costs, Network, PerUnit, UnitGroup


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


class Removal:
    """The networks that come about as units go one after the other.

    Args:
        network: what is to be pruned.
        what: `"macs"`, `"params"` or `"latency"`.
        importance: of each group's units.
        order: (group number, unit) in the order in which they go.
    """

    def __init__(
        self, network: Network, what: str, importance: PerUnit, order: list[tuple[int, int]]
    ) -> None:
        self._network, self._what = network, what
        self._importance, self._order = importance, order
        self._remaining = functools.cache(self._remains)  # latency is noisy: one answer each

    def keep_after(self, removed: int) -> dict[UnitGroup, np.ndarray]:
        """Returns what stays when so many units have gone, numbers rounded up."""
        groups = self._network.groups
        keep = {group: np.ones(group.units, bool) for group in groups}
        for number, unit in self._order[:removed]:
            keep[groups[number]][unit] = False
        keep = {group: kept & group.alive for group, kept in keep.items()}
        return rounded_up(keep, self._importance, self._network.round_to)

    def fewest(self, target: float) -> tuple[int | None, float]:
        """Returns the smallest number of units that meets a target, and what remains then.

        By bisection. The number is None where the target is not met with all of them gone, or
        only when nothing is left; what remains is then the least that is possible.
        """
        too_few, enough = 0, len(self._order)
        if self._remaining(0) <= target:
            return 0, self._remaining(0)
        while enough - too_few > 1 and self._remaining(len(self._order)) <= target:
            middle = (too_few + enough) // 2
            if self._remaining(middle) <= target:
                enough = middle
            else:
                too_few = middle
        least = self._remaining(enough)
        if 0.0 < least <= target:
            return enough, least
        return None, least or self._remaining(too_few)

    def _remains(self, removed: int) -> float:
        return self._network.remaining(self._what, self.keep_after(removed))


def removal_order(
    importance: Sequence[np.ndarray],
    costs: Costs,
    *,
    layers: Sequence[int] | None = None,
    at_least: Sequence[int] | None = None,
) -> list[tuple[int, int]]:
    """Returns (group number, unit) in the order in which units are to go.

    Always next is the unit with the least importance per cost. Where the importance is negative,
    removal is a gain, and the unit with the largest product of gain and cost goes first.

    Args:
        importance: of each group's units; NaN for those that stay.
        costs: with all units there.
        layers: by how many layers each group's units are made. The importance is then divided by
            its sum over the units that are left in the group, and counts once for each of these
            layers. A network is a product of layers: where one loses units, those of its
            neighbours get cheaper, and it alone would go on losing them if what is left were not
            worth more. None takes the importance as it is.
        at_least: for each group, how many units stay; None means one of each.
    """
    relative = layers is not None
    layers = np.ones(len(importance)) if layers is None else layers
    at_least = [1] * len(importance) if at_least is None else at_least
    waiting = [_removable(*each) for each in zip(importance, at_least, strict=True)]
    left = np.array([np.nansum(each) if relative else 1.0 for each in importance])
    gone = np.zeros(len(importance))
    order = []
    while any(len(units) for units in waiting):
        rest = 1.0 - costs.shares * gone[:, None]
        now = costs.layers * rest.prod(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            unit_costs = np.nansum(np.where(rest > 0, now * costs.shares / rest, 0.0), 1)
        keys = [
            _key(layers[number] * importance[number][units[0]] / (left[number] or 1.0), cost)
            if len(units)
            else np.inf
            for number, (units, cost) in enumerate(zip(waiting, unit_costs, strict=True))
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


def _key(importance: float, cost: float) -> float:
    if importance <= 0:
        return importance * cost
    return importance / cost if cost > 0 else np.inf


def _known(importance: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(importance), np.inf, importance)
