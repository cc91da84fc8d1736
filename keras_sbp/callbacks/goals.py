"""What a network is to be brought to while it trains: a budget, or a number of units of layers."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_sbp._arguments import check_count, check_fraction
from keras_sbp.evidence.network import ProgramNetwork
from keras_sbp.rules import Budget, PerUnit, UnitGroup
from keras_sbp.rules.budget import lowest_snr
from keras_sbp.rules.ranking import most_important

WHOSE = "GradualPruning"


class Goal(abc.ABC):
    """Says which units stay on the way to a target.

    Args:
        network: When training begins.
    """

    @abc.abstractmethod
    def keep(self, network: ProgramNetwork, left: float) -> PerUnit:
        """Returns which units stay.

        Args:
            network: With its posteriors and frozen units of now.
            left: Which part of the way to the target is left, 1 at its beginning, 0 at its end.
        """


class WithinBudget(Goal):
    """Leaves at most what a budget says.

    Raises:
        ValueError: If the budget cannot be met.
    """

    def __init__(self, budget: Budget, network: ProgramNetwork) -> None:
        self._budget = budget
        self._lowest_snr = math.inf
        importance = budget.importance(network)
        first, *_ = floors = budget.floors(importance)
        # By name: there is a new group for each time that a gate is looked at.
        self._least = {group.name: count for group, count in first.items()}
        budget.within(budget.fraction, network, importance, floors)

    def keep(self, network: ProgramNetwork, left: float) -> PerUnit:
        """Returns the largest network within what may remain now."""
        budget = self._budget
        self._lowest_snr = min(self._lowest_snr, lowest_snr(network))
        importance = budget.importance(network)
        fraction = budget.fraction + (1.0 - budget.fraction) * left
        keep = budget.within(fraction, network, importance, self._floors(importance))
        if not left:
            budget.warn_of_barely_trained(self._lowest_snr)
            return budget.saying_so_where_few_stay(keep, importance)
        return keep

    def _floors(self, importance: PerUnit) -> list[dict[UnitGroup, int]]:
        """A share of the units that there were, lest it become less with each step."""
        wanted, *others = self._budget.floors(importance)
        for group in wanted:
            worth = int(np.count_nonzero(importance[group][group.alive] > 0))
            wanted[group] = max(wanted[group], min(self._least[group.name], worth))
        return [wanted, *others]


class UnitsOfLayers(Goal):
    """Leaves so many units of some layers, and all of the others.

    Args:
        wanted: Names of layers or gates, and how many units stay, or which fraction.

    Raises:
        ValueError: If a name is not known, or two stand for the same units and differ.
    """

    def __init__(self, wanted: Mapping[str, int | float], network: ProgramNetwork) -> None:
        self._counts: dict[str, int] = {}
        self._before = {g.name: int(np.count_nonzero(g.alive)) for g in network.groups}
        for name, value in wanted.items():
            for group in _groups(network, name):
                count = int(value if isinstance(value, int) else math.ceil(value * group.units))
                if self._counts.setdefault(group.name, count) != count:
                    raise ValueError(
                        f"{WHOSE} is to leave {self._counts[group.name]} units of '{group.name}', "
                        f"and {count} by the name of '{name}', which stands for the same units. "
                        f"Expected one number. Remove '{name}' from the target."
                    )

    def keep(self, network: ProgramNetwork, left: float) -> PerUnit:
        """Returns the most important units of each layer, as many as may remain now."""
        keep = {group: group.alive for group in network.groups}
        for group in network.groups:
            if group.name in self._counts:
                last, first = self._counts[group.name], self._before[group.name]
                count = last + math.ceil(max(first - last, 0) * left)
                importance = np.where(group.alive, group.rule.importance_of(group), -np.inf)
                keep[group] = most_important(importance, count) & group.alive
        return keep


def _groups(network: ProgramNetwork, name: str) -> list[UnitGroup]:
    groups = network.groups_of(name)
    if not groups:
        gates = ", ".join(f"'{group.name}'" for group in network.groups)
        raise ValueError(
            f"{WHOSE} finds no gate for '{name}' in model '{network.program.model.name}'. Expected "
            f"names of layers whose units have a gate, or of gates: {gates}. Change the name in "
            "the target, or put a gate behind this layer."
        )
    return groups


def check_target(target: Any) -> Budget | dict[str, int | float]:
    """Returns the target, a budget or numbers of units by name."""
    if isinstance(target, Budget):
        return target
    if not isinstance(target, Mapping) or not target:
        raise TypeError(
            f"{WHOSE} needs to know what is to remain. Expected a keras_sbp.Budget, or a mapping "
            "from names of layers to numbers or fractions of their units. Received: "
            f"target={target!r} (of type {type(target).__name__}). Pass Budget(macs=0.3), for "
            "instance, or {'conv_3': 0.5, 'dense': 40}."
        )
    return {name: _check_units(name, value) for name, value in target.items()}


def _check_units(name: str, value: Any) -> int | float:
    if isinstance(value, float):
        return check_fraction(WHOSE, f"target['{name}']", value)
    otherwise = "a fraction above 0 and at most 1, or "
    return check_count(WHOSE, f"target['{name}']", value, otherwise=otherwise, such_as=16)


def goal_of(target: Budget | Mapping[str, int | float], network: ProgramNetwork) -> Goal:
    """Returns the goal of a network when training begins."""
    if isinstance(target, Budget):
        return WithinBudget(target, network)
    return UnitsOfLayers(target, network)
