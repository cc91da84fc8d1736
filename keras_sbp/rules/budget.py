"""How much may remain, instead of which score is good enough."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import keras
import numpy as np

from keras_sbp._arguments import check_count, check_fraction
from keras_sbp.rules.network import Decision, Network, PerUnit, UnitGroup
from keras_sbp.rules.ranking import Across, removal_order
from keras_sbp.rules.removal import Removal
from keras_sbp.rules.rule import PosteriorRule, Rule
from keras_sbp.rules.snr import SNRThreshold
from keras_sbp.telling import warn

# How many units of a group stay unless the user says: of those that are worth something, a share.
_LEAST_UNITS = 2
_LEAST_SHARE = 0.1
# Gates start at an SNR of about 250; the lowest of trained ones lie about the threshold.
_FAR_ABOVE = 10.0


@final
@keras.saving.register_keras_serializable(package="keras_sbp")
class Budget(Rule):
    """Removes units until a fraction of the network's cost remains.

    Units of all layers are ranked together. How those of different layers
    compare, the base knows (`Rule.across`): posteriors by their score, so that
    there is one threshold for the whole network; importance that means
    something within a layer only, such as a weight norm, relative to what is
    left there and per cost. A few units of each group stay in any case
    (`min_keep`), but for branches, and so do units whose importance the base
    does not know.

    What remains is what `prune()` really leaves, not an estimate. It is at
    most the fraction, and one unit more of any layer would be too much: where
    the last unit to go was a dear one, cheaper ones come back.

    It warns where the base ranks by posteriors and every SNR still lies far
    above the threshold: a ranking by gates that were barely trained says
    little.

    Exactly one of `macs`, `params` and `latency` is given.

    Args:
        macs: Float in (0, 1], the fraction of the multiply-accumulates that
            may remain.
        params: The fraction of the weights that may remain.
        latency: The fraction of the measured time per call that may remain: of
            LiteRT on this machine, one thread and one example. It is noisy.
        base: The `Rule` that says how important a unit is. `None` means
            `SNRThreshold()`, which needs trained gates.
        min_keep: Integer, how many units of each group stay in any case; a
            group that has no more stays whole, a branch (`axis=None`) may go.
            `None` means 2, or a tenth of the units that the base finds worth
            keeping (importance above 0) if that is more; where no network
            within the budget has so many, a warning comes, and fewer stay.

    Raises:
        TypeError: If `base` is not a rule, or one that was written for an
            earlier version of this package and has `is_relative`; if the
            fraction is not a number, or `min_keep` not an integer.
        ValueError: If not exactly one fraction is given, it is not in (0, 1],
            or `min_keep` is below 1; in `prune()`, if the budget cannot be met.

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
        min_keep: int | None = None,
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
                f"keras_sbp.rules.Rule, such as keras_sbp.L2Norm(). Received: base={base!r} "
                f"(of type {type(base).__name__})."
            )
        if (is_relative := getattr(base, "is_relative", None)) is not None:
            raise TypeError(
                f"{type(base).__name__} has `is_relative`, which nothing reads. Expected "
                "`across`, a keras_sbp.rules.Across, which says how units of different layers "
                f"compare in a Budget. Received: is_relative={is_relative!r}. Set `across = "
                "keras_sbp.rules.Across.RELATIVE_PER_COST` in its place for True, and nothing for "
                "False."
            )
        self.what, value = given.popitem()
        self.fraction = check_fraction("Budget", self.what, value)
        self.base = SNRThreshold() if base is None else base
        because = ", as a layer without any unit computes nothing"
        self.min_keep = (
            None
            if min_keep is None
            else check_count(
                "Budget", "min_keep", min_keep, otherwise="None or ", because=because, such_as=4
            )
        )

    @property
    def reweighting_data(self) -> Any:
        """What the base wants."""
        return self.base.reweighting_data

    def importance(self, network: Network) -> dict[UnitGroup, np.ndarray]:
        """Returns what the base says."""
        return dict(self.base.importance(network))

    def decide(self, network: Network) -> Decision:
        """Returns the largest network within the budget."""
        importance = self.importance(network)
        self.warn_of_barely_trained(lowest_snr(network))
        keep = self.within(self.fraction, network, importance, self.floors(importance))
        return Decision(self.saying_so_where_few_stay(keep, importance), importance)

    def within(
        self,
        fraction: float,
        network: Network,
        importance: PerUnit,
        floors: Sequence[Mapping[UnitGroup, int]],
    ) -> dict[UnitGroup, np.ndarray]:
        """Returns what stays of the largest network within a fraction.

        Args:
            fraction: What may remain.
            network: What is to be pruned.
            importance: What the base says of it.
            floors: How many units of each group must stay; the next ones are tried where no
                network within the fraction has so many.

        Raises:
            ValueError: If it cannot be met.
        """
        for least in floors:
            keep, remaining = self._removal(network, importance, least).largest(fraction)
            if keep is not None:
                return keep
        raise ValueError(self._not_met(network, importance, remaining))

    def warn_of_barely_trained(self, lowest: float) -> None:
        """Warns where the base ranks by posteriors and the lowest SNR lies far above noise."""
        if not isinstance(self.base, PosteriorRule):
            return
        threshold = self.base.threshold if isinstance(self.base, SNRThreshold) else 1.0
        if _FAR_ABOVE * threshold < lowest < math.inf:
            warn(
                f"The gates are barely trained: the lowest SNR of all units is {lowest:.3g}, and "
                f"units are noise below {threshold:g}. A ranking by them says little about what "
                "the network needs, and the budget may take most of a single layer. Train "
                "longer, until keras_sbp.SNRMonitor() reports that units go, or rank by something "
                "else, such as Budget(..., base=keras_sbp.L2Norm())."
            )

    def floors(self, importance: PerUnit) -> list[dict[UnitGroup, int]]:
        """Returns how many units of each group must stay, and what may be tried after that.

        Args:
            importance: What the base says of each group's units.
        """
        wanted = {group: self._at_least(group, values) for group, values in importance.items()}
        one = {group: min(count, 1) for group, count in wanted.items()}
        return [wanted, one] if self.min_keep is None else [wanted]

    def saying_so_where_few_stay(self, keep: PerUnit, importance: PerUnit) -> PerUnit:
        """Returns the decisions, and warns where they are below the default of `min_keep`."""
        wanted = self.floors(importance)[0]
        few = [
            f"'{group.name}' keeps {kept.sum()} of {group.units}"
            for group, kept in keep.items()
            if kept.sum() < wanted[group]
        ]
        if few:
            warn(
                f"The budget can be met only if few units of a group stay: {', '.join(few)}. "
                f"Expected {_LEAST_SHARE:.0%} of those that are worth keeping, and at least "
                f"{_LEAST_UNITS}. Allow more, put gates on more layers, or pass "
                "Budget(..., min_keep=1) if this is meant."
            )
        return keep

    def _at_least(self, group: UnitGroup, importance: np.ndarray) -> int:
        """How many units of a group stay in any case; those that are frozen do not count."""
        if group.is_branch:
            return 0
        least = self.min_keep
        if least is None:
            worth = np.count_nonzero(importance[group.alive] > 0)
            least = max(_LEAST_UNITS, math.ceil(_LEAST_SHARE * worth))
        return min(least, int(np.count_nonzero(group.alive)))

    def _removal(
        self, network: Network, importance: PerUnit, least: Mapping[UnitGroup, int]
    ) -> Removal:
        groups, layers = network.groups, None
        across = Across(self.base.across)
        if across is Across.RELATIVE_PER_COST:
            layers = [max(1, len(network.kernels(group))) for group in groups]
        costs = network.costs("params" if self.what == "params" else "macs")
        order = removal_order(
            [np.where(group.alive, importance[group], np.nan) for group in groups],
            costs,
            across,
            layers=layers,
            at_least=[least[group] + int(np.count_nonzero(~group.alive)) for group in groups],
        )
        return Removal(network, self.what, importance, order, costs)

    def _not_met(self, network: Network, importance: PerUnit, remaining: float) -> str:
        rounded = lower = ""
        if network.round_to > 1:
            rounded = f" (rounded up to multiples of {network.round_to})"
        one = {group: min(count, 1) for group, count in self.floors(importance)[0].items()}
        if self._removal(network, importance, one).largest(self.fraction)[0] is not None:
            lower = "pass a lower min_keep (with min_keep=1 it can be met), "
        return (
            f"The budget cannot be met: without any unit that may go{rounded}, {remaining:.1%} "
            f"remain. Expected at most {self.fraction:.1%}. What stays: {self.min_keep or 1} of "
            "each group, a branch without which an output would be constant, and units of which "
            f"the rule knows nothing. Allow more, {lower}use another base, or put gates on more "
            "layers (keras_sbp.insert_sbp with tie_residual=True gates residual streams too)."
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, without a `min_keep` of None."""
        base = keras.saving.serialize_keras_object(self.base)
        config = {self.what: self.fraction, "base": base}
        return config if self.min_keep is None else config | {"min_keep": self.min_keep}


def lowest_snr(network: Network) -> float:
    """Returns the lowest SNR of the units that are not frozen, infinity where none has any."""
    posteriors = [(g.posterior, g.alive) for g in network.groups if g.posterior is not None]
    snr = [posterior.snr()[alive] for posterior, alive in posteriors]
    return float(np.min(np.concatenate([[], *snr]), initial=math.inf))
