"""How far units go: the largest network that meets a target."""

from __future__ import annotations

import bisect
from collections.abc import Callable

import numpy as np

from keras_sbp.rules.network import Costs, Network, PerUnit, UnitGroup
from keras_sbp.rules.ranking import rounded_up

Keep = dict[UnitGroup, np.ndarray]

# So often the next number to try comes from the estimate, in case that is good; then by halves.
_GUESSES = 5
# A unit is not tried if it is estimated to need so many times what is left to the target.
_CLEARLY = 1.5


class Removal:
    """The networks that come about as units go one after the other.

    What remains is counted on pruned networks. Each takes a moment to make, so an estimate says
    which of them to look at.

    Args:
        network: what is to be pruned.
        what: `"macs"`, `"params"` or `"latency"`.
        importance: of each group's units.
        order: (group number, unit) in the order in which they go.
        costs: what layers cost, for the estimate.
    """

    def __init__(
        self,
        network: Network,
        what: str,
        importance: PerUnit,
        order: list[tuple[int, int]],
        costs: Costs,
    ) -> None:
        self._network, self._what = network, what
        self._importance, self._order, self._costs = importance, order, costs
        self._counted: dict[bytes, float] = {}  # latency is noisy: one answer each

    def largest(self, target: float) -> tuple[Keep | None, float]:
        """Returns what stays of the largest network that meets a target, and what remains then.

        As few units go as meet the target; then those of them that still fit come back, the last
        ones first. Those that are worth nothing do not come back if others had to go, and none
        does for latency, which is noisier than a unit is dear. The first is None where the target
        is not met with all of them gone, or only when nothing is left; what remains is then the
        least that is possible.
        """
        most = len(self._order)
        removed = self._fewest(self._after, most, target)
        if removed > most or not self._remaining(self._after(removed)):
            return None, self._remaining(self._after(max(0, removed - 1)))
        keep = self._after(removed)
        if self._what != "latency":
            for group, units in self._to_come_back(removed).items():
                keep = self._filled(keep, group, units, target)
        return keep, self._remaining(keep)

    def _after(self, removed: int) -> Keep:
        """What stays when so many units have gone, numbers rounded up."""
        groups = self._network.groups
        keep = {group: group.alive.copy() for group in groups}
        for number, unit in self._order[:removed]:
            keep[groups[number]][unit] = False
        return self._rounded(keep)

    def _to_come_back(self, removed: int) -> dict[UnitGroup, list[int]]:
        """Of the units that have gone, those that may come back, the last ones first."""
        groups = self._network.groups
        gone = [(groups[number], unit) for number, unit in reversed(self._order[:removed])]
        worth = [(group, unit) for group, unit in gone if self._importance[group][unit] > 0]
        result: dict[UnitGroup, list[int]] = {}
        for group, unit in worth or gone:
            result.setdefault(group, []).append(unit)
        return result

    def _filled(self, keep: Keep, group: UnitGroup, units: list[int], target: float) -> Keep:
        """What stays when the first of a group's units have come back, as many as fit."""
        units = [unit for unit in units if not keep[group][unit]]

        def without(removed: int) -> Keep:
            kept = keep[group].copy()
            kept[units[: len(units) - removed]] = True
            return self._rounded({**keep, group: kept})

        if not units:
            return keep
        estimate, remaining = self._estimate(keep), self._remaining(keep)
        needed = self._estimate(without(len(units) - 1)) - estimate
        if needed * remaining > _CLEARLY * (target - remaining) * estimate:
            return keep
        return without(self._fewest(without, len(units), target))

    def _fewest(self, after: Callable[[int], Keep], most: int, target: float) -> int:
        """The smallest number that meets a target when it has gone, `most + 1` if none does.

        Args:
            after: what stays when so many have gone.
        """
        too_few, enough = -1, most + 1
        guesses, estimated = _GUESSES, target
        while enough - too_few > 1:
            number = (too_few + enough) // 2
            if guesses:
                guess = self._fewest_estimated(after, most, estimated)
                number = min(max(guess, too_few + 1), enough - 1)
                guesses -= 1
            remaining = self._remaining(after(number))
            if remaining:
                estimated = target * self._estimate(after(number)) / remaining
            if remaining <= target:
                enough = number
            else:
                too_few = number
        return enough

    def _fewest_estimated(self, after: Callable[[int], Keep], most: int, target: float) -> int:
        return bisect.bisect_left(
            range(most), True, key=lambda removed: self._estimate(after(removed)) <= target
        )

    def _rounded(self, keep: Keep) -> Keep:
        return rounded_up(keep, self._importance, self._network.round_to)

    def _estimate(self, keep: Keep) -> float:
        gone = [np.count_nonzero(~keep[group]) for group in self._network.groups]
        return self._costs.remaining(np.array(gone))

    def _remaining(self, keep: Keep) -> float:
        key = b"".join(keep[group].tobytes() for group in self._network.groups)
        if key not in self._counted:
            self._counted[key] = self._network.remaining(self._what, keep)
        return self._counted[key]
