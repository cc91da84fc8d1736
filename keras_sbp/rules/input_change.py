"""The rule that asks the next layers: which of their inputs can they do without?"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from typing import Any, final

import keras
import numpy as np

from keras_sbp._arguments import check_fraction, check_number
from keras_sbp.rules.budget import Budget
from keras_sbp.rules.least_squares import Selection
from keras_sbp.rules.network import Decision, Network, PerUnit, UnitGroup
from keras_sbp.rules.ranking import Across, most_important
from keras_sbp.rules.rule import Rule, register_rule

VARIANTS = ("asymmetric", "sequential", "layer")

# Far below any difference that means something: keeps the greedy order where nothing is gained.
_NOTHING = 1e-12


@final
@register_rule("input-change", package="keras_sbp")
class LayerInputChange(Rule):
    """Keeps the units from which the next layers can best be fed.

    The layers that read a group of units should receive what they always did.
    Units are chosen greedily, so that least squares can rebuild the readers'
    outputs (before the activation) from the chosen ones; units that others
    can stand in for go. It needs a few hundred inputs, and neither gates nor
    labels nor training.

    Readers are Dense layers and convolutions, right behind the gate or behind
    whatever leaves the units apart from each other (activation, pooling,
    normalisation, flattening). A group without any such reader keeps all
    units.

    The choice counts on new weights in the readers, so they are fitted too:
    see `reweight`.

    Reference:
        El Halabi, Srinivas, Lacoste-Julien (2022), Data-Efficient Structured
        Pruning via Submodular Optimization
        (https://arxiv.org/abs/2203.04940).

    Args:
        data: Inputs of the model, as for `predict()`: an array or a structure
            of arrays with a few hundred examples.
        keep: Float in (0, 1], the fraction of each group that stays. Or a
            `Budget` of `macs` or `params` for the whole network. Its base is
            not asked: each group keeps as many units as bring its relative
            objective, were it pruned alone, below a threshold, which is the
            same for all and as high as the budget demands (the rule of the
            paper, with the objective in the place of accuracy), and never
            fewer than the budget's `min_keep`.
        variant: What the readers are to receive, and from what.
            `"asymmetric"`: what they received in the original network, from
            the network as it is pruned so far. `"sequential"`: both from the
            network as pruned so far. `"layer"`: both from the original one.
        reweight: Whether `prune()` gives the readers the weights that were
            found, as `prune(..., reweight=data)` does after other rules.
        ridge: Positive float, relative to each feature's second moment.
            Larger values make the choice depend less on details of few data.

    Raises:
        TypeError: If `keep` is neither a number nor a `Budget`.
        ValueError: If `keep` is out of range or a budget of latency, `variant`
            is not known or `ridge` is not positive.

    Example:

    >>> rule = keras_sbp.LayerInputChange(x[:512], keep=0.5)
    >>> small, report = keras_sbp.prune(model, rule)
    """

    across = Across.RELATIVE_PER_COST

    def __init__(
        self,
        data: Any,
        keep: float | Budget = 0.5,
        variant: str = "asymmetric",
        reweight: bool = True,
        ridge: float = 1e-4,
    ) -> None:
        if variant not in VARIANTS:
            raise ValueError(
                f"LayerInputChange expected `variant` to be one of {VARIANTS}. "
                f"Received: variant={variant!r}."
            )
        if isinstance(keep, Budget) and keep.what == "latency":
            raise ValueError(
                "LayerInputChange cannot meet a budget of latency itself. Expected a fraction, or "
                "a Budget of macs or params. Pass this rule to the budget instead: "
                "Budget(latency=..., base=LayerInputChange(data))."
            )
        if not isinstance(keep, Budget):
            keep = check_fraction("LayerInputChange", "keep", keep)
        ridge = check_number("LayerInputChange", "ridge", ridge, positive=True, such_as=1e-4)
        self.data, self.keep, self.variant = data, keep, variant
        self.reweight, self.ridge = bool(reweight), ridge
        self._alone: weakref.WeakKeyDictionary[Network, Any] = weakref.WeakKeyDictionary()

    @property
    def reweighting_data(self) -> Any:
        """The data, unless `reweight` is False."""
        return self.data if self.reweight else None

    def importance(self, network: Network) -> dict[UnitGroup, np.ndarray]:
        """Returns for each unit what its group's relative objective was when it was chosen.

        Each group counts as if it were pruned alone: 1 for its first unit, falling to about 0.
        A budget that ranks by this alone prunes each group down to the same relative objective.
        """
        return {
            group: _importance(selection, group.units)
            for group, selection in self._each_alone(network).items()
        }

    def decide(self, network: Network) -> Decision:
        """Returns the units that are chosen."""
        counts = self._counts(network)
        if self.variant == "layer":
            selections = self._each_alone(network)
        else:
            selections = network.input_change(
                self.data,
                counts,
                variant=self.variant,
                reweight=self.reweight,
                ridge=self.ridge,
            )
        keep = {
            group: _chosen(selection, group.units, counts[group])
            for group, selection in selections.items()
        }
        return Decision(keep)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, without the data."""
        return {
            "keep": keras.saving.serialize_keras_object(self.keep),
            "variant": self.variant,
            "reweight": self.reweight,
            "ridge": self.ridge,
        }

    def _each_alone(self, network: Network) -> Mapping[UnitGroup, Selection | None]:
        """All units of each group in order, in the network with all units there."""
        if network not in self._alone:
            self._alone[network] = network.input_change(
                self.data, None, variant="layer", reweight=False, ridge=self.ridge
            )
        return self._alone[network]

    def _counts(self, network: Network) -> dict[UnitGroup, int]:
        budget = self.keep
        if not isinstance(budget, Budget):
            return {group: math.ceil(budget * group.units) for group in network.groups}
        importance = self.importance(network)
        for least in budget.floors(importance):
            keep, remaining = _largest(budget, network, importance, least)
            if remaining <= budget.fraction:
                keep = budget.saying_so_where_few_stay(keep, importance)
                return {group: int(each.sum()) for group, each in keep.items()}
        lower = ""
        one = dict.fromkeys(least, 1)
        if _largest(budget, network, importance, one)[1] <= budget.fraction:
            lower = "pass a lower min_keep (with min_keep=1 it can be met), "
        raise ValueError(
            f"The budget of {self!r} cannot be met: with {budget.min_keep or 1} unit(s) left in "
            f"each group that Dense layers or convolutions read, {remaining:.1%} remain. Expected "
            f"at most {budget.fraction:.1%}. Allow more, {lower}or put gates on more layers."
        )


def _largest(
    budget: Budget, network: Network, importance: PerUnit, least: Mapping[UnitGroup, int]
) -> tuple[PerUnit, float]:
    """The most that the budget allows, or the least that there is, and what remains of it."""
    levels = np.unique(np.concatenate(list(importance.values())))
    levels = levels[~np.isnan(levels)]
    first = {g: most_important(importance[g], max(1, count)) for g, count in least.items()}

    def above(number: int) -> PerUnit:
        level = levels[number - 1] if number else -1.0
        return {g: ~(each <= level) | first[g] for g, each in importance.items()}

    def remaining(number: int) -> float:
        return network.remaining(budget.what, above(number))

    enough = _smallest(lambda n: remaining(n) <= budget.fraction, len(levels))
    return above(enough), remaining(enough)


def _smallest(holds: Any, most: int) -> int:
    """The smallest number at which something holds that goes on to hold, `most` if none."""
    too_small, enough = -1, most
    while enough - too_small > 1:
        middle = (too_small + enough) // 2
        if holds(middle):
            enough = middle
        else:
            too_small = middle
    return enough


def _importance(selection: Selection | None, units: int) -> np.ndarray:
    importance = np.full(units, np.nan)
    if selection is not None:
        last_first = np.arange(units, 0, -1)
        importance[selection.order] = selection.objective[:-1] + _NOTHING * last_first
    return importance


def _chosen(selection: Selection | None, units: int, count: int) -> np.ndarray:
    if selection is None:
        return np.ones(units, bool)
    return np.isin(np.arange(units), selection.order[:count])
