"""What insertion, pruning and handlers say to do, done."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import Input, Model, Sequential, layers

import keras_sbp
from keras_sbp.layers import find_gates
from keras_sbp.program.registry import handler_of
from keras_sbp.rules import PosteriorRule
from tests.pruning.oracle import drop_units, gate, randomise
from tests.remedies.case import case, check_remedy

X = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")


class Sums(layers.Layer):
    """Has no handler, and neither has the operation in it."""

    def call(self, x: Any) -> Any:
        return keras.ops.cumsum(x, axis=-1)


class KeepsTooFew(PosteriorRule):
    """Answers for all units but one."""

    def __init__(self, missing: int = 1) -> None:
        self.missing = missing

    def keep(self, posterior: Any) -> Any:
        return (posterior.mean() > 0)[self.missing :]


def network(*behind: layers.Layer, dead: list[int] = (1, 3)) -> keras.Model:
    parts = [layers.Dense(8, activation="relu"), gate(), *behind, layers.Dense(2)]
    model = randomise(Sequential([Input((6,)), *parts]), drop=0.0)
    drop_units(find_gates(model)[0], list(dead))
    return model


def unbuilt(start: list = ()) -> keras.Model:
    return Sequential([*start, layers.Dense(8), layers.Dense(2)])


def called(model: keras.Model) -> keras.Model:
    model(X)
    return model


def built(model: keras.Model) -> keras.Model:
    model.build((None, 6))
    return model


class Branching(keras.Model):
    """Does something else where its input is negative."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = layers.Dense(8, activation="relu"), layers.Dense(2)

    def call(self, x: Any) -> Any:
        x = self.first(x)
        return self.second(x if float(keras.ops.sum(x)) > 0 else -x)


def rebuilt(model: Branching) -> keras.Model:
    features = Input((6,))
    return Model(features, model.second(model.first(features)))


def taylor(compiled: bool = False, **options: Any) -> None:
    model = randomise(
        Sequential([Input((6,)), layers.Dense(8, activation="relu"), layers.Dense(2)])
    )
    if compiled:
        model.compile("sgd", "mse")
    keras_sbp.prune(model, keras_sbp.Taylor((X, X[:, :2]), keep=0.5, **options))


def sweep(compiled: bool) -> None:
    model = network()
    if compiled:
        model.compile(loss="mse", metrics=["mae"])
    keras_sbp.sweep(model, [keras_sbp.L2Norm(0.5)], (X, X[:, :2]), verbose=0)


HandlesActivation = type(handler_of(layers.Activation))


def serve(*classes: Any, **options: Any) -> None:
    keras_sbp.register_handler(*classes, **options)(type("Serves", (HandlesActivation,), {}))


def fresh_class() -> type:
    return type("Fresh", (Sums,), {})


def served_class() -> type:
    cls = fresh_class()
    serve(cls)
    return cls


def plain() -> keras.Model:
    return Sequential([Input((6,)), layers.Dense(8, name="in"), layers.Dense(2, name="out")])


def random_at(training: bool) -> keras.Model:
    """Random in every call, or in training only."""
    drop = layers.Dropout(0.5, seed=1)
    always = layers.Lambda(lambda x: keras.random.dropout(x, 0.5, seed=drop.seed_generator))
    return network(drop if training else always)


def not_finite() -> keras.Model:
    model = network()
    model.layers[-1].bias.assign([np.nan, 0.0])
    return model


@pytest.mark.parametrize(
    ("words", "wrong", "right"),
    [
        case(
            "Call it once on data, call model.build(input_shape), or start it with keras.Input",
            lambda: keras_sbp.insert_sbp(unbuilt()),
            lambda: [
                keras_sbp.insert_sbp(called(unbuilt())),
                keras_sbp.insert_sbp(built(unbuilt())),
                keras_sbp.insert_sbp(unbuilt(start=[Input((6,))])),
            ],
        ),
        case(
            "Change it, or rebuild the model with keras.Model(inputs, outputs) from its layers",
            lambda: keras_sbp.insert_sbp(called(Branching()), inputs=Input((6,))),
            lambda: keras_sbp.insert_sbp(rebuilt(called(Branching()))),
        ),
        case(
            "Remove the argument",
            lambda: keras_sbp.prune(network(), inputs=Input((6,))),
            lambda: keras_sbp.prune(network()),
        ),
        case(
            "Fix what the rule keeps",
            lambda: keras_sbp.prune(network(), KeepsTooFew()),
            lambda: keras_sbp.prune(network(), KeepsTooFew(missing=0)),
        ),
        case(
            "Pass one, such as keras_sbp.Taylor(data, loss=",
            taylor,
            lambda: [taylor(loss="mse"), taylor(compiled=True)],
        ),
        case(
            "Call model.compile(loss=..., metrics=[...]) first",
            lambda: sweep(compiled=False),
            lambda: sweep(compiled=True),
        ),
        case(
            "Use it as a decorator with classes, not with layers",
            lambda: serve(fresh_class()()),
            lambda: serve(fresh_class()),
        ),
        case(
            "Pass replace=True to register_handler()",
            lambda: serve(served_class()),
            lambda: serve(served_class(), replace=True),
        ),
        case(
            "Remove it from `layers`",
            lambda: keras_sbp.insert_sbp(plain(), layers=["in", "out"]),
            lambda: keras_sbp.insert_sbp(plain(), layers=["in"]),
        ),
        case(
            "Change the arguments, or put SBPLayers into the model by hand",
            lambda: keras_sbp.insert_sbp(plain(), exclude="in"),
            lambda: [
                keras_sbp.insert_sbp(plain()),
                keras_sbp.prune(
                    Sequential([Input((6,)), layers.Dense(8), gate(), layers.Dense(2)])
                ),
            ],
        ),
        case(
            "Register handlers for these layers (keras_sbp.register_handler), or pass strict=False",
            lambda: keras_sbp.prune(network(Sums()), strict=True),
            lambda: keras_sbp.prune(network(Sums())),
        ),
        case(
            "Look for NaN or infinity in the model's weights, or pass verify=False",
            lambda: keras_sbp.prune(not_finite()),
            lambda: [keras_sbp.prune(network()), keras_sbp.prune(not_finite(), verify=False)],
        ),
        case(
            "Look for layers called with training=True, or pass verify=False",
            lambda: keras_sbp.prune(random_at(training=False)),
            lambda: [
                keras_sbp.prune(random_at(training=True)),
                keras_sbp.prune(random_at(training=False), verify=False),
            ],
        ),
    ],
)
def test_remedy(words: str, wrong: Any, right: Any) -> None:
    check_remedy(words, wrong, right)
