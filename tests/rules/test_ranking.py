"""From importance to decisions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_sbp.rules.budget import Budget
from keras_sbp.rules.network import Costs, Network, UnitGroup
from keras_sbp.rules.ranking import Across, most_important, removal_order, rounded_up
from keras_sbp.rules.rule import Rule

FLOATS = st.lists(st.floats(-5, 5), min_size=1, max_size=12)


def test_most_important_units_stay() -> None:
    assert most_important(np.array([0.1, 3.0, 2.0, 3.0]), 2).tolist() == [False, True, False, True]


def test_first_of_equals_stays() -> None:
    assert most_important(np.ones(3), 1).tolist() == [True, False, False]


def test_unknown_importance_stays() -> None:
    keep = most_important(np.array([np.nan, 1.0, np.nan, 2.0]), 1)
    assert keep.tolist() == [True, False, True, False]


@given(FLOATS, st.integers(0, 12), st.integers(1, 9))
def test_rounding_up(importance, count, multiple) -> None:
    importance = np.array(importance)
    group = UnitGroup("g", importance.size)
    keep = most_important(importance, min(count, importance.size))
    rounded = rounded_up({group: keep}, {group: importance}, multiple)[group]
    assert (rounded | ~keep).all()  # nothing goes
    assert rounded.sum() % multiple == 0 or rounded.all()
    assert rounded.sum() - keep.sum() < multiple
    back, gone = importance[rounded & ~keep], importance[~rounded]
    assert not back.size or not gone.size or back.min() >= gone.max()


class Chain(Network):
    """Dense layers 10 → a → b → 3 with gates on a and b."""

    def __init__(self, a: int, b: int, round_to: int = 1) -> None:
        self.sizes, self.round_to = (a, b), round_to
        self.groups = [UnitGroup("a", a), UnitGroup("b", b)]

    def costs(self, what):
        a, b = self.sizes
        shares = [[1 / a, 1 / a, 0.0], [0.0, 1 / b, 1 / b]]
        return Costs(np.array([10.0 * a, a * b, 3 * b]), np.array(shares))

    def remaining(self, what, keep):
        a, b = self.sizes
        x, y = (keep[group].sum() for group in self.groups)
        return (10 * x + x * y + 3 * y) / (10 * a + a * b + 3 * b)

    def kernels(self, group):
        return []

    normalization_scale = squared_gradients = input_change = None


class Given(Rule):
    def __init__(self, numbers, across=Across.PER_COST) -> None:
        self.numbers, self.across = numbers, across

    def importance(self, network):
        return dict(zip(network.groups, self.numbers, strict=True))

    decide = None


@given(
    st.integers(2, 9),
    st.integers(2, 9),
    st.floats(0.05, 1.0),
    st.integers(1, 4),
    st.sampled_from(Across),
    st.data(),
)
def test_budget_is_met_and_one_unit_more_would_be_too_much(
    a, b, target, multiple, across, data
) -> None:
    network = Chain(a, b, multiple)
    numbers = [
        np.array(data.draw(st.lists(st.floats(-1, 5), min_size=n, max_size=n))) for n in (a, b)
    ]
    least = data.draw(st.integers(1, 10))
    budget = Budget(macs=target, base=Given(numbers, across), min_keep=least)
    costs = network.costs("macs")
    order = removal_order(numbers, costs, across, layers=[1, 1], at_least=[least, least])
    importance = budget.importance(network)

    def remaining(keep) -> float:
        return network.remaining("macs", rounded_up(keep, importance, multiple))

    def after(count: int) -> dict:
        keep = {group: np.ones(group.units, bool) for group in network.groups}
        for number, unit in order[:count]:
            keep[network.groups[number]][unit] = False
        return keep

    possible = [remaining(after(count)) for count in range(len(order) + 1)]
    if possible[-1] > target:
        with pytest.raises(ValueError, match="cannot be met"):
            budget.decide(network)
        return
    decided = budget.decide(network).keep
    assert all(kept.sum() >= min(least, group.units) for group, kept in decided.items())
    first = next(share for share in possible if share <= target)
    assert first <= network.remaining("macs", decided) <= target
    worth = {group: ~kept & (importance[group] > 0) for group, kept in decided.items()}
    for group, kept in decided.items():
        others_went = any(each.any() for each in worth.values())
        for unit in np.flatnonzero(worth[group] if others_went else ~kept):
            one_more = kept | (np.arange(kept.size) == unit)
            assert remaining({**decided, group: one_more}) > target


def test_units_that_fit_come_back_after_a_dear_one() -> None:
    """The last unit to go costs 40 of 100; three of four units for 5 each have room again."""
    network = Chain(0, 0)
    network.groups = [UnitGroup("dear", 2), UnitGroup("cheap", 4)]
    counts = {"dear": 40.0, "cheap": 5.0}
    network.costs = lambda what: Costs(np.array([80.0, 20.0]), np.array([[0.5, 0.0], [0.0, 0.25]]))
    network.remaining = lambda what, keep: (
        sum(counts[group.name] * kept.sum() for group, kept in keep.items()) / 100
    )
    base = Given([np.array([5.0, 9.0]), np.array([1.0, 4.0, 2.0, 3.0])], Across.AS_IT_IS)
    keep = Budget(macs=0.56, base=base, min_keep=1).decide(network).keep
    dear, cheap = (keep[group].tolist() for group in network.groups)
    assert dear == [False, True]
    assert cheap == [False, True, True, True]


def test_next_is_the_least_importance_per_cost() -> None:
    costs = Costs(np.array([100.0, 30.0]), np.array([[0.25, 0.0], [0.0, 0.25]]))
    importance = [np.array([4.0, 1.0, 2.0, 3.0]), np.array([0.9, 0.2, 1.0, 5.0])]
    # Per unit 25 and 7.5: 1/25, 0.2/7.5, 2/25 and so on; one unit of each group stays.
    order = removal_order(importance, costs)
    assert order == [(1, 1), (0, 1), (0, 2), (0, 3), (1, 0), (1, 2)]


def test_one_threshold_for_the_whole_network_asks_for_no_costs() -> None:
    costs = Costs(np.array([100.0, 1.0, 0.0]), np.array([[0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]))
    importance = [np.array([-1.0, 2.0]), np.array([-2.0, 1.0]), np.array([-3.0, -3.0])]
    order = removal_order(importance, costs, Across.AS_IT_IS, at_least=[0, 0, 0])
    assert order == [(1, 0), (0, 0), (1, 1), (0, 1)]  # the third group costs nothing


def test_cost_falls_as_neighbours_go() -> None:
    """Both groups lie at one layer: what one loses makes units of the other cheaper."""
    costs = Costs(np.array([100.0]), np.array([[0.5], [0.25]]))
    importance = [np.array([0.1, 9.0]), np.array([1.0, 1.0, 1.0, 9.0])]
    order = removal_order(importance, costs)
    assert order[0] == (0, 0)
    assert len(order) == 4


def test_gains_go_first_the_largest_gain_times_cost_first() -> None:
    costs = Costs(np.array([10.0, 90.0]), np.array([[0.5, 0.0], [0.0, 0.5]]))
    importance = [np.array([-2.0, 0.001]), np.array([-1.0, 7.0])]
    assert removal_order(importance, costs)[:2] == [(1, 0), (0, 0)]


def test_what_costs_nothing_and_what_is_unknown_stays() -> None:
    costs = Costs(np.array([10.0]), np.array([[0.0], [0.5]]))
    importance = [np.ones(3), np.array([np.nan, np.nan])]
    assert removal_order(importance, costs) == []


def test_relative_importance_keeps_a_chain_in_balance() -> None:
    """Of equal units, the cheaper neighbour of a narrow layer must not be spared for ever."""
    network = Chain(8, 16)
    relative = Across.RELATIVE_PER_COST
    order = removal_order([np.ones(8), np.ones(16)], network.costs("macs"), relative)
    half = order[:12]
    first = sum(number == 0 for number, _ in half)
    assert 2 <= first <= 6
    assert len(order) == 22


def test_units_of_several_layers_are_worth_as_many() -> None:
    """A residual stream that four layers write to is not four times as cheap to lose."""
    costs = Costs(np.array([100.0, 100.0]), np.array([[0.25, 0.0], [0.0, 0.25]]))
    order = removal_order([np.ones(4)] * 2, costs, Across.RELATIVE_PER_COST, layers=[1, 4])
    assert [number for number, _ in order] == [0, 0, 0, 1, 1, 1]


def test_the_one_unit_of_a_branch_may_go() -> None:
    costs = Costs(np.array([100.0, 30.0]), np.array([[1.0, 0.0], [0.0, 1.0]]))
    importance = [np.array([1.0]), np.array([1.0])]
    assert removal_order(importance, costs) == []
    assert removal_order(importance, costs, at_least=[0, 1]) == [(0, 0)]


def test_as_many_as_are_to_stay_do() -> None:
    costs = Costs(np.array([100.0, 30.0]), np.array([[0.25, 0.0], [0.0, 0.25]]))
    importance = [np.array([1.0, 2.0, 3.0, 4.0]), np.array([np.nan, 1.0, np.nan, 2.0])]
    for least in range(6):
        gone = [number for number, _ in removal_order(importance, costs, at_least=[least, least])]
        assert gone.count(0) == max(0, 4 - least)
        assert gone.count(1) == max(0, min(2, 4 - least))  # the unknown ones count as staying
