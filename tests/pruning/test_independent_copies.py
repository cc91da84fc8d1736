"""A model and what is made of it share nothing: either trains, and the other does not notice.

JAX gives the memory of variables to the training step, which writes into it: a buffer that two
models hold would be lost to one of them.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import Input, Model, layers

import keras_sbp
from keras_sbp.layers import find_gates

X = np.random.default_rng(0).normal(size=(8, 2, 2, 2)).astype("float32")
Y = np.random.default_rng(1).normal(size=(8, 3)).astype("float32")

pytestmark = pytest.mark.usefixtures("optimizers_built_first")


class Own(layers.Layer):
    """Nothing but a deep copy copies it: Keras captures no functions."""

    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.function = function
        self.factor = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        return self.factor * self.function(x)


def network(*first: layers.Layer) -> Model:
    """Layers with weights, statistics and random state."""
    inputs = x = Input((2, 2, 2))
    for layer in first:
        x = layer(x)
    x = layers.Flatten()(layers.GaussianNoise(0.1)(x))
    x = layers.BatchNormalization()(layers.Dense(8, "relu")(x))
    return compiled(Model(inputs, layers.Dense(3, name="last")(layers.Dropout(0.3)(x))))


def augmented() -> Model:
    return network(layers.RandomFlip(seed=1), Own(keras.ops.tanh))


def compiled(model: Model) -> Model:
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def fit(model: Model) -> None:
    model.fit(X, Y, verbose=0)


def fitted() -> Model:
    model = network()
    fit(model)
    return model


def inserted(model: Model) -> Model:
    return keras_sbp.insert_sbp(model, num_samples=8, verbose=0)


def gated() -> Model:
    """A network with a gate that lets units go."""
    model = inserted(network())
    (gate,) = find_gates(model)
    gate.set_posterior(0.0, [-5.0] * 5 + [3.0] * 3)
    return compiled(model)


def fitted_gated() -> Model:
    model = gated()
    fit(model)
    return model


def pruned(*rule: keras_sbp.rules.Rule, **options) -> Callable[[Model], Model]:
    return lambda model: keras_sbp.prune(model, *rule, **options)[0]


def swept(model: Model) -> Model:
    rule = keras_sbp.L1Norm(0.5)
    result = keras_sbp.sweep(model, [rule], (X, Y), verbose=0)
    assert result.rows[1].score
    return pruned(rule)(model)


taylor = keras_sbp.Taylor((X, Y))
CASES = {
    "insert_sbp": (augmented, inserted),
    "insert_sbp, fitted": (fitted, inserted),
    "prune, fitted": (fitted_gated, pruned()),
    "Taylor with gates": (gated, pruned(taylor)),
    "Taylor, rounded": (network, pruned(taylor, round_to=4)),
    "reweighted": (gated, pruned(reweight=X)),
    "reweighted, fitted": (fitted, pruned(keras_sbp.L1Norm(0.5), reweight=X)),
    "sweep": (fitted_gated, swept),
}


def state(model: Model) -> list[np.ndarray]:
    """What a model predicts and holds."""
    predicted = keras.ops.convert_to_numpy(model(X, training=False))
    return [predicted, *map(keras.ops.convert_to_numpy, model.variables)]


def assert_same(state: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for ours, theirs in zip(state, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def assert_trains_alone(model: Model, other: Model) -> None:
    untouched, before = state(other), model.get_layer("last").get_weights()[0]
    fit(model)
    assert np.abs(model.get_layer("last").get_weights()[0] - before).max() > 1e-3
    assert_same(state(other), untouched)


@pytest.mark.parametrize("case", CASES)
def test_a_model_and_what_is_made_of_it_train_apart(case: str) -> None:
    make, derive = CASES[case]
    given = make()
    before = state(given)
    result = compiled(derive(given))
    assert_same(state(given), before)
    assert_trains_alone(result, given)
    assert_trains_alone(given, result)
    assert_trains_alone(result, given)


def test_training_the_given_model_first_leaves_its_gated_copy_alone() -> None:
    given = network()
    copy = compiled(inserted(given))
    assert_trains_alone(given, copy)
    assert_trains_alone(copy, given)
