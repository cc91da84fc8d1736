"""shrink() on networks of many kinds: random units are frozen, and the next steps are the same."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import Input, Model, layers

import keras_sbp
from keras_sbp.layers import find_gates

# To the digits of float64; other backends are tested in test_shrink.py.
pytestmark = pytest.mark.tensorflow


@pytest.fixture(autouse=True)
def float64():
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(before)


def transformer() -> Model:
    inputs = Input((8, 8, 3))
    x = layers.Reshape((16, 16))(layers.Conv2D(16, 2, 2)(inputs))
    x = layers.Add()([x, layers.MultiHeadAttention(4, 4)(*[layers.LayerNormalization()(x)] * 2)])
    hidden = layers.Dense(24, activation="gelu")(layers.LayerNormalization()(x))
    x = layers.Add()([x, layers.Dense(16)(hidden)])
    return Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def convolutions() -> Model:
    inputs = Input((12, 12, 3))
    x = layers.Conv2D(8, 3, use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.SeparableConv2D(10, 3, activation="relu")(x)
    x = layers.Conv2D(12, 1, groups=2)(layers.DepthwiseConv2D(3)(x))
    x = layers.MaxPooling2D()(layers.Conv2DTranspose(6, 2, 2)(x))
    x = layers.Concatenate()([x, layers.Conv2D(4, 3, padding="same")(x)])
    return Model(inputs, layers.Dense(3)(layers.Flatten()(layers.PReLU()(x))))


def recurrent() -> Model:
    inputs = Input((9, 5))
    x = layers.Conv1D(8, 3, activation="relu")(inputs)
    x = layers.Bidirectional(layers.LSTM(6, return_sequences=True))(x)
    x = layers.TimeDistributed(layers.Dense(7, activation="relu"))(x)
    x = layers.Dense(8, activation="relu")(layers.GRU(5)(x))
    return Model(inputs, layers.Dense(3)(x))


def nested_and_shared() -> Model:
    inner = keras.Sequential(
        [Input((6,)), layers.Dense(9, activation="relu"), layers.Dense(7, activation="relu")]
    )
    inputs = [Input((6,)), Input((6,))]
    return Model(inputs, layers.Dense(3)(layers.Multiply()([inner(x) for x in inputs])))


def embedding() -> Model:
    inputs = Input((6,), dtype="int32")
    x = layers.Conv1D(6, 2, activation="relu")(layers.Embedding(20, 8)(inputs))
    return Model(inputs, layers.Dense(3)(layers.GlobalMaxPooling1D()(x)))


def group_normalization() -> Model:
    inputs = Input((5, 6))
    x = layers.EinsumDense("abc,cd->abd", (5, 8), bias_axes="d", activation="relu")(inputs)
    x = layers.Dense(6, activation="relu")(layers.GroupNormalization(2)(x))
    return Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


NETWORKS = [transformer, convolutions, recurrent, nested_and_shared, embedding, group_normalization]


@pytest.mark.stress
@pytest.mark.filterwarnings("ignore:Frozen units stay until prune")
@pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)
def test_the_next_steps_are_the_same(make) -> None:
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(1)
    options = {"num_samples": 64, "log_sigma_initializer": -19.0, "tie_residual": True}
    gated = keras_sbp.insert_sbp(make(), verbose=0, **options)
    x = [
        rng.integers(0, 20, (8, *each.shape[1:]))
        if each.dtype == "int32"
        else rng.normal(size=(8, *each.shape[1:]))
        for each in gated.inputs
    ]
    y = rng.normal(size=(8, 3))
    gated.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse", run_eagerly=True)
    gated.train_on_batch(x, y)
    for gate in find_gates(gated):
        gate.freeze(rng.random(gate.units) < 0.6)
    small = keras_sbp.shrink(gated)
    assert small.count_params() < gated.count_params()
    theirs, ours = ([float(each.train_on_batch(x, y)) for _ in range(4)] for each in (gated, small))
    np.testing.assert_allclose(ours, theirs, rtol=1e-7)
