"""What rules say to do, done."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import Input, Model, Sequential, layers

import keras_sbp
from keras_sbp.rules import Rule
from keras_sbp.rules.least_squares import Moments, select
from tests.pruning.oracle import drop_units, randomise
from tests.remedies.case import case, check_remedy

X = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
Y = X[:, :2]


def gated(**options: Any) -> keras.Model:
    gate = keras_sbp.SBPLayer(**options)
    parts = [layers.Dense(8, activation="relu"), gate, layers.Dense(2)]
    model = randomise(Sequential([Input((6,)), *parts]), drop=0.0)
    drop_units(gate, [1, 3])
    return model


def plain() -> keras.Model:
    parts = [layers.Dense(8, activation="relu"), layers.Dense(2)]
    return randomise(Sequential([Input((6,)), *parts]))


def residual() -> keras.Model:
    x = features = Input((6,))
    stream = layers.Dense(8)(x)
    branch = layers.Dense(8, activation="relu")(layers.Dense(4, activation="relu")(stream))
    return randomise(Model(features, layers.Dense(2)(layers.Add()([stream, branch]))))


def prune_residual(fraction: float, base: Rule, **options: Any) -> None:
    budget = keras_sbp.Budget(macs=fraction, base=base)
    small, report = keras_sbp.prune(keras_sbp.insert_sbp(residual(), **options), budget)
    assert report.macs_after <= fraction * report.macs_before


def prune_by_input_change(fraction: float, model: keras.Model) -> None:
    rule = keras_sbp.LayerInputChange(X, keep=keras_sbp.Budget(macs=fraction))
    small, report = keras_sbp.prune(model, rule)
    assert report.macs_after <= fraction * report.macs_before


class OfAnEarlierVersion(keras_sbp.L2Norm):
    is_relative = True


class Ported(keras_sbp.L2Norm):
    across = keras_sbp.rules.Across.RELATIVE_PER_COST


def choose_units(scale: float) -> None:
    moments = Moments.empty(np.arange(6), 2, "reader")
    moments.add(scale * X.astype(float), scale * Y.astype(float))
    select([moments], units=6, wanted=3)


def reweight(broken: str = "") -> None:
    data = X[:5] if broken == "data" else X
    model = gated()
    if broken == "weights":
        model.layers[-1].kernel.assign(np.full((8, 2), np.nan, "float32"))
    keras_sbp.prune(model, reweight=data)


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:(The gates are barely|The budget can be met only):UserWarning")
@pytest.mark.parametrize(
    ("words", "wrong", "right"),
    [
        case(
            "Pass a float, such as 0.5",
            lambda: keras_sbp.L2Norm("half"),
            lambda: keras_sbp.L2Norm(0.5),
        ),
        case(
            "Change SBPLayer(log_low=..., log_high=...) or take another rule",
            lambda: keras_sbp.prune(gated(log_low=-1.0), keras_sbp.BMRSUniform(8)),
            lambda: [
                keras_sbp.prune(gated(), keras_sbp.BMRSUniform(8)),
                keras_sbp.prune(gated(log_low=-1.0), keras_sbp.SNRThreshold()),
            ],
        ),
        case(
            "or put gates on more layers (keras_sbp.insert_sbp with tie_residual=True",
            lambda: prune_residual(0.2, keras_sbp.L2Norm()),
            lambda: [
                prune_residual(0.9, keras_sbp.L2Norm()),
                prune_residual(0.2, keras_sbp.L2Norm(), tie_residual=True),
            ],
        ),
        case(
            "Pass one, such as Budget(macs=0.25)",
            lambda: keras_sbp.Budget(),
            lambda: keras_sbp.Budget(macs=0.25),
        ),
        case(
            "Set `across = keras_sbp.rules.Across.RELATIVE_PER_COST` in its place",
            lambda: keras_sbp.Budget(macs=0.6, base=OfAnEarlierVersion()),
            lambda: keras_sbp.prune(plain(), keras_sbp.Budget(macs=0.6, base=Ported())),
        ),
        case(
            "Pass this rule to the budget instead",
            lambda: keras_sbp.LayerInputChange(X, keep=keras_sbp.Budget(latency=0.5)),
            lambda: keras_sbp.Budget(latency=0.5, base=keras_sbp.LayerInputChange(X)),
        ),
        case(
            "or put gates on more layers",
            lambda: prune_by_input_change(0.3, keras_sbp.insert_sbp(residual())),
            lambda: [
                prune_by_input_change(0.9, keras_sbp.insert_sbp(residual())),
                prune_by_input_change(0.3, keras_sbp.insert_sbp(residual(), tie_residual=True)),
            ],
        ),
        case("Give more examples", lambda: reweight(broken="data"), reweight),
        case(
            "Look for NaN or infinity in the data and in the weights of the model",
            lambda: reweight(broken="weights"),
            reweight,
        ),
        case(
            "Look for NaN or infinity, or numbers near the largest float, in the data",
            lambda: choose_units(1e200),
            lambda: choose_units(1.0),
        ),
        case(
            "Insert them with keras_sbp.insert_sbp and train, or use a rule that needs no gates",
            lambda: keras_sbp.prune(plain(), keras_sbp.Budget(macs=0.5)),
            lambda: [
                keras_sbp.prune(keras_sbp.insert_sbp(plain()), keras_sbp.Budget(macs=0.5)),
                keras_sbp.prune(plain(), keras_sbp.Budget(macs=0.5, base=keras_sbp.L2Norm())),
            ],
        ),
        case(
            "Pass a float, such as",
            lambda: keras_sbp.SNRThreshold(-1.0),
            lambda: keras_sbp.SNRThreshold(1.0),
        ),
    ],
)
def test_remedy(words: str, wrong: Any, right: Any) -> None:
    check_remedy(words, wrong, right)
