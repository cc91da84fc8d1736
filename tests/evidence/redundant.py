"""Small networks in which half of the units repeat the others, and how to prune them."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import Input, Model, layers

from keras_sbp.evidence.refit import reweight
from keras_sbp.insertion import insert_sbp
from keras_sbp.insertion.gates import with_decisions
from keras_sbp.layers import SBPLayer
from keras_sbp.program import analyse, trace
from keras_sbp.program.rebuild import rebuild
from keras_sbp.program.removal import Trials
from tests.pruning.oracle import randomise

REDUNDANT: dict[str, Callable[[], Model]] = {}


def network(build: Callable[[], Model]) -> Callable[[], Model]:
    REDUNDANT[build.__name__] = build
    return build


def repeat_units(model: Model, *names: str) -> Model:
    """Makes the second half of these layers' units copies of the first half, but for a factor."""
    randomise(model)
    for layer in map(model.get_layer, names):
        half = layer.kernel.shape[-1] // 2
        factor = np.random.default_rng(0).uniform(0.5, 2, half).astype(np.float32)
        for variable in (layer.kernel, layer.bias):
            value = keras.ops.convert_to_numpy(variable).copy()
            value[..., half:] = value[..., :half] * factor
            variable.assign(value)
    return model


@network
def dense_chain() -> Model:
    x = Input((10,))
    y = layers.Dense(12, activation="relu", name="a")(x)
    y = layers.Dense(8, activation="relu", name="b")(y)
    return repeat_units(Model(x, layers.Dense(4)(y)), "a", "b")


@network
def convolution_pooling_flatten_dense() -> Model:
    x = Input((9, 9, 2))
    y = layers.Conv2D(8, 3, activation="relu", name="a")(x)
    y = layers.Conv2D(6, 3, padding="same", strides=2, activation="relu", name="b")(y)
    y = layers.Flatten()(layers.AveragePooling2D(2)(y))
    return repeat_units(Model(x, layers.Dense(4)(y)), "a", "b")


@network
def residual_block() -> Model:
    x = Input((6, 6, 4))
    y = layers.Conv2D(8, 3, padding="same", activation="relu", name="a")(x)
    y = layers.Add()([x, layers.Conv2D(4, 3, padding="same")(y)])
    y = layers.GlobalAveragePooling2D()(layers.ReLU()(y))
    return repeat_units(Model(x, layers.Dense(3)(y)), "a")


@network
def two_readers() -> Model:
    x = Input((10,))
    y = layers.Dense(12, activation="relu", name="a")(x)
    one, two = layers.Dense(3)(y), layers.Dense(4, use_bias=False)(layers.Concatenate()([y, x]))
    return repeat_units(Model(x, layers.Concatenate()([one, two])), "a")


def data_for(model: Model, examples: int = 160, seed: int = 0) -> np.ndarray:
    shape = (examples, *model.input_shape[1:])
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def with_marks(model: Model) -> Model:
    """A copy with gates of factor 1, which may be written into."""
    return insert_sbp(model, mu_initializer=1.0, log_sigma_initializer=-20.0)


def pruned(gated: Model, decisions: dict[SBPLayer, np.ndarray], data: np.ndarray | None) -> Model:
    """The small network; reweighted if there are data."""
    program = trace(gated)
    if data is not None:
        for variable, value in reweight(Trials(program), decisions, data):
            variable.assign(value)
    decided = with_decisions(program, decisions)
    return rebuild(decided, analyse(decided)).model


def outputs(model: Model, data: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(data, training=False))


def relative_error(model: Model, small: Model, data: np.ndarray) -> float:
    expected = outputs(model, data)
    return float(((expected - outputs(small, data)) ** 2).sum() / expected.var(0).sum() / len(data))
