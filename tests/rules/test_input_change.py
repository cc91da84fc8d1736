"""LayerInputChange finds planted redundancy, keeps what it is told to, and refuses nonsense."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import Input, Model, layers

from keras_sbp.evidence.network import ProgramNetwork
from keras_sbp.layers import find_gates
from keras_sbp.program import trace
from keras_sbp.pruning.decide import decide
from keras_sbp.rules import Budget
from keras_sbp.rules.input_change import VARIANTS, LayerInputChange
from tests.evidence.redundant import (
    REDUNDANT,
    data_for,
    dense_chain,
    pruned,
    relative_error,
    with_marks,
)


def network_of(gated: Model) -> ProgramNetwork:
    return ProgramNetwork(trace(gated))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", REDUNDANT)
def test_planted_redundancy_is_removed_without_loss(name: str, variant: str) -> None:
    model = REDUNDANT[name]()
    gated, data = with_marks(model), data_for(model)
    decisions = decide(network_of(gated), LayerInputChange(data, 0.5, variant, ridge=1e-8)).keep
    for gate, keep in decisions.items():
        half = gate.units // 2
        assert keep.sum() == half
        assert sorted(np.flatnonzero(keep) % half) == list(range(half))  # one of each pair
    small = pruned(gated, decisions, data)
    assert small.count_params() < model.count_params()
    assert relative_error(model, small, data_for(model, seed=1)) < 1e-6


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("reweight", [True, False])
def test_below_the_redundancy(variant: str, reweight: bool) -> None:
    model = dense_chain()
    gated, data = with_marks(model), data_for(model)
    rule = LayerInputChange(data, 0.34, variant, reweight)
    decisions = decide(network_of(gated), rule).keep
    assert [keep.sum() for keep in decisions.values()] == [5, 3]
    errors = [relative_error(model, pruned(gated, decisions, d), data) for d in (None, data)]
    assert errors[1] < errors[0]


def test_asymmetric_looks_at_the_pruned_prefix() -> None:
    model = dense_chain()
    data = data_for(model)
    keeps = []
    for variant in VARIANTS:
        network = network_of(with_marks(model))
        decisions = LayerInputChange(data, 0.25, variant, reweight=False).decide(network).keep
        keeps.append([list(np.flatnonzero(each)) for each in decisions.values()])
    assert keeps[0][0] == keeps[1][0] == keeps[2][0]  # nothing is pruned in front of the first
    assert keeps[0][1] != keeps[2][1] or keeps[1][1] != keeps[2][1]


def test_importance_falls_from_1_in_greedy_order() -> None:
    model = dense_chain()
    network = network_of(with_marks(model))
    rule = LayerInputChange(data_for(model), 0.5, "layer", ridge=1e-8)
    importance, keep = rule.importance(network), rule.decide(network).keep
    for group in network.groups:
        values = importance[group]
        assert values.max() == pytest.approx(1.0)
        assert len(np.unique(values)) == group.units
        assert (values > 1e-6).sum() == group.units // 2
        assert values[keep[group]].min() > values[~keep[group]].max()


@pytest.mark.parametrize("what", ["macs", "params"])
def test_budget_cuts_each_group_at_the_same_relative_objective(what: str) -> None:
    model = REDUNDANT["convolution_pooling_flatten_dense"]()
    network = network_of(with_marks(model))
    rule = LayerInputChange(data_for(model), Budget(**{what: 0.4}))
    importance, keep = rule.importance(network), rule.decide(network).keep
    assert 0.2 < network.remaining(what, keep) <= 0.4
    counts = [keep[group].sum() for group in network.groups]
    ranked = [np.sort(importance[group])[::-1] for group in network.groups]
    last = min(values[count - 1] for values, count in zip(ranked, counts, strict=True))
    following = [v[c] for v, c in zip(ranked, counts, strict=True) if c < len(v)]
    assert last > max(following)


def test_serves_as_the_base_of_a_budget() -> None:
    model = dense_chain()
    network = network_of(with_marks(model))
    keep = Budget(macs=0.5, base=LayerInputChange(data_for(model))).decide(network).keep
    assert network.remaining("macs", keep) <= 0.5


def test_budget_that_cannot_be_met() -> None:
    model = dense_chain()
    network = network_of(with_marks(model))
    with pytest.raises(ValueError, match=r"cannot be met: .* remain. Expected at most 1.0%"):
        LayerInputChange(data_for(model), Budget(macs=0.01)).decide(network)


def test_a_group_without_linear_readers_stays_whole() -> None:
    x = Input((8,))
    y = layers.Dense(6, activation="relu")(x)
    gated = with_marks(Model(x, layers.EinsumDense("bi,ij->bj", 3)(y)))
    network = network_of(gated)
    rule = LayerInputChange(data_for(gated), 0.5)
    assert find_gates(gated)
    for group, keep in rule.decide(network).keep.items():
        assert keep.all()
        assert np.isnan(rule.importance(network)[group]).all()


def test_user_model_is_not_touched_by_the_decision() -> None:
    gated = with_marks(dense_chain())
    before = [keras.ops.convert_to_numpy(w) for w in gated.weights]
    LayerInputChange(data_for(gated), 0.5).decide(network_of(gated))
    for old, new in zip(before, gated.weights, strict=True):
        np.testing.assert_array_equal(old, keras.ops.convert_to_numpy(new))


def test_same_data_same_decision() -> None:
    model = REDUNDANT["convolution_pooling_flatten_dense"]()
    rule = LayerInputChange(data_for(model), 0.3)
    keeps = [list(rule.decide(network_of(with_marks(model))).keep.values()) for _ in range(2)]
    for one, two in zip(*keeps, strict=True):
        np.testing.assert_array_equal(one, two)


def test_refuses_data_that_do_not_fit() -> None:
    network = network_of(with_marks(dense_chain()))
    holed = np.where(np.arange(300).reshape(30, 10) == 73, np.nan, 0.0)
    for message, data in {
        "`data` has 3 examples, too few to fit": np.zeros((3, 10)),
        "`data` does not fit the model": np.zeros((30, 10, 2)),
        "`data` for input '.*' is NaN or infinite in places": holed,
    }.items():
        with pytest.raises(ValueError, match=message):
            LayerInputChange(data).decide(network)


def test_refuses_arguments_out_of_range() -> None:
    data = np.zeros((30, 10))
    for keep in (0.0, 1.5):
        with pytest.raises(ValueError, match="fraction"):
            LayerInputChange(data, keep)
    with pytest.raises(ValueError, match="variant='other'"):
        LayerInputChange(data, variant="other")
    with pytest.raises(ValueError, match="a positive, finite number"):
        LayerInputChange(data, ridge=0.0)
    with pytest.raises(ValueError, match="latency"):
        LayerInputChange(data, Budget(latency=0.5))


def test_repr_does_not_show_the_data() -> None:
    text = repr(LayerInputChange(np.zeros((30, 10)), 0.25))
    assert text == (
        "LayerInputChange(keep=0.25, variant='asymmetric', reweight=True, ridge=0.0001)"
    )
