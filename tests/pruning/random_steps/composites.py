"""Layers made of layers, models with a call of their own, and dtypes that differ."""

from __future__ import annotations

import keras
from keras import layers, ops

from tests.pruning.oracle import gate
from tests.pruning.random_steps.registry import step


class GatedResidual(layers.Layer):
    """x + gate(relu(Dense(x))), in layers of its own."""

    def __init__(self, units: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.dense = layers.Dense(units, activation="relu")
        self.gate = gate()
        self.back = layers.Dense(units)

    def build(self, shape: tuple) -> None:
        self.dense.build(shape)
        self.gate.build((*shape[:-1], self.dense.units))
        self.back.build((*shape[:-1], self.dense.units))

    def compute_output_shape(self, shape: tuple) -> tuple:
        return shape

    def call(self, x, training=None):
        return x + self.back(self.gate(self.dense(x), training=training))


class Tower(keras.Model):
    """A model with a call of its own, with a composite layer inside."""

    def __init__(self, units: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.first = layers.Dense(units)
        self.block = GatedResidual(units)

    def build(self, shape: tuple) -> None:
        self.first.build(shape)
        self.block.build((*shape[:-1], self.first.units))

    def compute_output_shape(self, shape: tuple) -> tuple:
        return (*shape[:-1], self.first.units)

    def call(self, x, training=None):
        return ops.tanh(self.block(ops.softplus(self.first(x)), training=training))


@step(2, 3, 4)
def composite_layer(author, x):
    return author.remember(GatedResidual(x.shape[-1]), x)


@step(2, 3, 4)
def subclassed_model(author, x):
    return author.remember(Tower(author.count()), x)


@step(2, 3)
def lambda_layer(author, x):
    function = author.one_of([ops.sin, lambda t: ops.sigmoid(t) * t, lambda t: t[..., 1:]])
    return layers.Lambda(function)(x)


@step(2, 3, 4)
def other_precision(author, x):
    """A few layers in double precision between others in single precision."""
    x = layers.Dense(author.count(), activation="relu", dtype="float64")(x)
    x = gate(dtype=author.one_of(["float32", "float64"]))(x)
    return author.remember(layers.Dense(author.count(), dtype="float32"), x)


@step(3)
def nested_model_with_two_inputs(author, x):
    units = x.shape[-1]
    a, b = keras.Input(x.shape[1:]), keras.Input(x.shape[1:])
    merged = layers.Concatenate()([gate()(layers.Dense(units)(a)), b])
    inner = keras.Model([a, b], layers.Dense(units, activation="relu")(merged))
    return inner([x, gate()(x)])
