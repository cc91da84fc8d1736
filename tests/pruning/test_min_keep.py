"""A budget leaves some units of each group, and says so where gates were barely trained."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
from keras import Input, Model, layers

import keras_sbp
from keras_sbp import Budget, L2Norm, LayerInputChange, SBPLayer, SNRMonitor
from keras_sbp.layers import find_gates
from tests.pruning.oracle import randomise

X = np.random.default_rng(0).normal(size=(64, 10)).astype("float32")

pytestmark = pytest.mark.usefixtures("optimizers_built_first")


def network(*widths: int) -> Model:
    """Dense layers with gates; the units of the first have the lowest SNRs, and go first."""
    x = inputs = Input((10,))
    for number, width in enumerate(widths):
        x = layers.Dense(width, "relu", name=f"dense{number}")(x)
        x = SBPLayer(name=f"gate{number}")(x)
    model = randomise(Model(inputs, layers.Dense(3)(x)))
    for number, width in enumerate(widths):
        log_sigma = np.linspace(-1.0, -0.5, width) - 0.6 * number
        model.get_layer(f"gate{number}").set_posterior(-1.0, log_sigma)
    return model


def units(model: Model, rule, **options) -> list[int]:
    _, report = keras_sbp.prune(model, rule, **options)
    return [gate.units_after for gate in report.gates]


def test_a_budget_strips_no_layer_to_one_unit_by_default():
    model = network(16, 48)
    assert units(model, Budget(macs=0.1, min_keep=1))[0] == 1
    assert units(model, Budget(macs=0.1))[0] == 2
    assert units(network(40, 48), Budget(macs=0.13))[0] == 4


@pytest.mark.parametrize(("least", "kept"), [(1, 1), (5, 5), (8, 8)])
def test_min_keep_is_the_least_of_each_group(least: int, kept: int):
    assert units(network(8, 48), Budget(macs=0.3, min_keep=least))[0] == kept


def test_a_group_with_fewer_units_stays_whole():
    assert units(network(3, 48), Budget(macs=0.3, min_keep=6))[0] == 3


def test_min_keep_counts_before_rounding():
    assert units(network(16, 48), Budget(macs=0.3, min_keep=3), round_to=4)[0] == 4


def test_frozen_units_do_not_count_as_kept():
    model = network(8, 48)
    gate = model.get_layer("gate0")
    gate.freeze(np.arange(8) >= 5)  # the three that are left are the most important ones
    assert units(model, Budget(macs=0.15, min_keep=2))[0] == 2
    gate.unfreeze()
    gate.freeze(np.arange(8) < 3)  # or the least important
    assert units(model, Budget(macs=0.15, min_keep=2))[0] == 2
    assert units(model, Budget(macs=0.25), round_to=2)[0] == 2


def test_noise_goes_below_the_default_share():
    """The share is one of the units that the rule itself would keep."""
    model = network(60, 20)
    log_sigma = np.where(np.arange(60) < 3, -1.0, 3.0)
    model.get_layer("gate0").set_posterior(-0.5, log_sigma)
    assert units(model, Budget(params=0.06))[0] == 2


def test_a_tied_stream_is_one_group_and_whole_branches_may_go():
    x = inputs = Input((10,))
    stream = SBPLayer(name="stream")
    x = stream(layers.Dense(8)(x))
    for number in range(2):
        y = layers.Dense(8)(layers.Dense(16, "relu")(x))
        x = stream(layers.Add()([x, SBPLayer(axis=(), name=f"branch{number}")(y)]))
    model = randomise(Model(inputs, layers.Dense(2)(x)))
    stream.set_posterior(-1.0, np.linspace(-1.0, -0.5, 8))
    for number in range(2):
        model.get_layer(f"branch{number}").set_posterior(-3.0, 0.5)
    small, _ = keras_sbp.prune(model, Budget(macs=0.06, min_keep=3))
    assert [layer.units for layer in small.layers if isinstance(layer, layers.Dense)] == [3, 2]


@pytest.mark.parametrize("base", [None, L2Norm(), LayerInputChange(X)])
def test_a_budget_that_min_keep_stands_against_is_met_as_the_error_says(base):
    model = network(16, 16)
    with pytest.raises(
        ValueError, match=r"Allow more, pass a lower.*with min_keep=1 it can be met"
    ):
        units(model, Budget(macs=0.1, base=base, min_keep=6))
    assert min(units(model, Budget(macs=0.1, base=base, min_keep=1))) >= 1
    assert min(units(model, Budget(macs=0.4, base=base, min_keep=6))) >= 6


def test_a_lower_min_keep_is_not_advised_where_it_does_not_help():
    with pytest.raises(ValueError, match="cannot be met") as error:
        units(network(16, 16), Budget(macs=0.001))
    assert "min_keep=1" not in str(error.value)


def test_input_change_keeps_to_min_keep():
    model = network(16, 16)
    assert min(units(model, LayerInputChange(X, Budget(macs=0.35, min_keep=7)))) >= 7
    with pytest.raises(ValueError, match="min_keep=1"):
        units(model, LayerInputChange(X, Budget(macs=0.1, min_keep=7)))
    assert units(model, LayerInputChange(X, Budget(macs=0.1, min_keep=1)))


def test_sweep_shows_both():
    model = network(16, 48)
    model.compile(loss="mse")
    rules = [Budget(macs=0.06, min_keep=least) for least in (1, 4)]
    result = keras_sbp.sweep(model, rules, (X, np.zeros((64, 3))), verbose=0)
    assert [bool(row.error) for row in result.rows] == [False, False, True]
    assert "min_keep=4" in result.rows[2].rule


def test_min_keep_is_in_the_config():
    rule = Budget(macs=0.3, min_keep=3)
    assert rule.get_config()["min_keep"] == 3
    assert Budget.from_config(rule.get_config()).min_keep == 3
    assert Budget.from_config(Budget(macs=0.3).get_config()).min_keep is None


@pytest.mark.remedy("Pass an integer, such as")
@pytest.mark.parametrize(
    ("wrong", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_min_keep_is_checked(wrong, error):
    with pytest.raises(error, match="min_keep.*Pass a"):
        Budget(macs=0.5, min_keep=wrong)
    assert Budget(macs=0.5, min_keep=4).min_keep == 4


def told(model: Model, rule) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        keras_sbp.prune(model, rule)
    return [str(w.message) for w in caught if w.category is UserWarning]


@pytest.mark.remedy("Allow more, put gates on more layers, or pass Budget(..., min_keep=1)")
@pytest.mark.parametrize("with_budget", [lambda b: b, lambda b: LayerInputChange(X, b)])
def test_a_tight_budget_goes_below_the_default_and_says_so(with_budget):
    model = network(16, 16)
    (message,) = told(model, with_budget(Budget(macs=0.06)))
    assert "keeps 1 of 16" in message
    assert told(model, with_budget(Budget(macs=0.06, min_keep=1))) == []
    assert told(model, with_budget(Budget(macs=0.5))) == []


def fresh() -> Model:
    return Model(*(lambda x: (x, layers.Dense(1)(SBPLayer()(layers.Dense(8)(x)))))(Input((10,))))


@pytest.mark.parametrize("base", [None, keras_sbp.BMRSNormal(), keras_sbp.BMRSUniform()])
def test_barely_trained_gates_are_named(base):
    (message,) = told(fresh(), Budget(macs=0.5, base=base))
    assert "lowest SNR of all units is 247" in message


def test_another_base_is_no_ranking_by_gates():
    assert told(fresh(), Budget(macs=0.5, base=L2Norm())) == []


@pytest.mark.remedy("Train longer, until keras_sbp.SNRMonitor() reports that units go")
def test_training_longer_ends_the_warning():
    model = fresh()
    (gate,) = find_gates(model)
    gate.set_posterior(0.0, -4.0)
    model.compile(keras.optimizers.Adam(0.02), "mse")
    y = X[:, :1] - X[:, 1:2]
    model.fit(X, y, epochs=15, batch_size=16, verbose=0, callbacks=[SNRMonitor()])
    assert not gate.keep().all()
    assert told(model, Budget(macs=0.5)) == []


def test_units_near_the_threshold_are_trained():
    model = fresh()
    (gate,) = find_gates(model)
    gate.set_posterior(0.0, [0.0] + [-5.0] * 7)
    assert told(model, Budget(macs=0.5)) == []
