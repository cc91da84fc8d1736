"""How much may remain, instead of which score is good enough."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np

from keras_sbp.selection.baselines import check_fraction
from keras_sbp.selection.network import Costs, Network, UnitGroup
from keras_sbp.selection.ranking import rounded_up
from keras_sbp.selection.rule import Rule
from keras_sbp.selection.snr import SNRThreshold


@final
class Budget(Rule):
    """Removes units until a fraction of the network's cost remains.

    Units of all layers are ranked together, by importance per cost. A unit's
    cost is what its layers would get cheaper by if it went now: it falls as
    units of the layers beside it go. Importance that means something within
    a layer only, such as a weight norm, counts relative to what is left there;
    units that several layers make count once for each. One unit of each group
    stays in any case, but for branches, and so do units whose importance the
    base does not know.

    What remains is what `prune()` really leaves, not an estimate. It is at
    most the fraction, and one unit more would be too much.

    Exactly one of `macs`, `params` and `latency` is given.

    Args:
        macs: Float in (0, 1], the fraction of the multiply-accumulates that
            may remain.
        params: The fraction of the weights that may remain.
        latency: The fraction of the measured time per call that may remain: of
            LiteRT on this machine, one thread and one example. It is noisy.
        base: The `Rule` that says how important a unit is. `None` means
            `SNRThreshold()`, which needs trained gates.

    Raises:
        TypeError: If `base` is not a rule, or the fraction is not a number.
        ValueError: If not exactly one fraction is given, or it is not in
            (0, 1]; in `prune()`, if the budget cannot be met.

    Example:

    >>> rule = keras_sbp.Budget(macs=0.5, base=keras_sbp.L1Norm())
    >>> small, report = keras_sbp.prune(model, rule)
    """

    def __init__(
        self,
        macs: float | None = None,
        params: float | None = None,
        latency: float | None = None,
        base: Rule | None = None,
    ) -> None:
        given = {"macs": macs, "params": params, "latency": latency}
        given = {what: value for what, value in given.items() if value is not None}
        if len(given) != 1:
            raise ValueError(
                "Budget expected exactly one of `macs`, `params` and `latency`. "
                f"Received: {', '.join(given) or 'none'}. Pass one, such as Budget(macs=0.25)."
            )
        if base is not None and not isinstance(base, Rule):
            raise TypeError(
                "Budget asks its base how important units are. Expected a "
                f"keras_sbp.selection.Rule, such as keras_sbp.L2Norm(). Received: base={base!r} "
                f"(of type {type(base).__name__})."
            )
        self.what, value = given.popitem()
        self.fraction = check_fraction("Budget", self.what, value)
        self.base = SNRThreshold() if base is None else base

    @property
    def reweighting_data(self) -> Any:
        """What the base wants."""
        return self.base.reweighting_data

    def importance(self, network: Network) -> dict[UnitGroup, np.ndarray]:
        """Returns what the base says."""
        return dict(self.base.importance(network))

    def decide(self, network: Network) -> dict[UnitGroup, np.ndarray]:
        """Returns the largest network within the budget."""
        importance = self.importance(network)
        costs = network.costs("params" if self.what == "params" else "macs")
        layers = None
        if self.base.is_relative:
            layers = [max(1, len(network.kernels(group))) for group in network.groups]
        order = removal_order(
            [importance[group] for group in network.groups],
            costs,
            layers=layers,
            last_stays=[not group.is_branch for group in network.groups],
        )

        def keep_after(removed: int) -> dict[UnitGroup, np.ndarray]:
            keep = {group: np.ones(group.units, bool) for group in network.groups}
            for number, unit in order[:removed]:
                keep[network.groups[number]][unit] = False
            return rounded_up(keep, importance, network.round_to)

        removed = _fewest(
            lambda number: network.remaining(self.what, keep_after(number)),
            self.fraction,
            len(order),
            network.round_to,
        )
        return keep_after(removed)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {self.what: self.fraction, "base": self.base}


def removal_order(
    importance: Sequence[np.ndarray],
    costs: Costs,
    *,
    layers: Sequence[int] | None = None,
    last_stays: Sequence[bool] | None = None,
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
        last_stays: for each group, whether one unit stays; None means always.
    """
    relative = layers is not None
    layers = np.ones(len(importance)) if layers is None else layers
    last_stays = [True] * len(importance) if last_stays is None else last_stays
    waiting = [_removable(*each) for each in zip(importance, last_stays, strict=True)]
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


def _removable(importance: np.ndarray, last_stays: bool) -> np.ndarray:
    """The units from the least important on; those that are not known stay."""
    ranked = np.argsort(importance, kind="stable")  # NaN last
    return ranked[: min(np.count_nonzero(~np.isnan(importance)), importance.size - last_stays)]


def _key(importance: float, cost: float) -> float:
    if importance <= 0:
        return importance * cost
    return importance / cost if cost > 0 else np.inf


def _fewest(remaining: Callable[[int], float], target: float, most: int, round_to: int) -> int:
    """The smallest number of removed units with which the budget is met, by bisection.

    Raises:
        ValueError: it is not met with all of them removed, or only when nothing is left.
    """
    remaining = functools.cache(remaining)  # latency is noisy: one answer per question
    if remaining(0) <= target:
        return 0
    too_few, enough = 0, most
    while enough - too_few > 1 and remaining(most) <= target:
        middle = (too_few + enough) // 2
        if remaining(middle) <= target:
            enough = middle
        else:
            too_few = middle
    if 0.0 < remaining(enough) <= target:
        return enough
    least = remaining(enough) or remaining(too_few)
    rounded = f" (rounded up to multiples of {round_to})" if round_to > 1 else ""
    raise ValueError(
        f"The budget cannot be met: without any unit that may go{rounded}, {least:.1%} remain. "
        f"Expected at most {target:.1%}. One unit of each group stays, a branch without which an "
        "output would be constant, and units of which the rule knows nothing. Allow more, use "
        "another base, or put gates on more layers (keras_sbp.insert_sbp with tie_residual=True "
        "gates residual streams too)."
    )
