"""Recurrent layers, and layers repeated at every time step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import keras
from keras import layers

from tests.pruning.random_steps.registry import step

if TYPE_CHECKING:
    from tests.pruning.random_graphs import Author

LONGEST = 6
ACTIVATIONS = ["tanh", "tanh", "tanh", "softsign", "relu", "softmax"]


@step(3)
def recurrent(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    """One recurrent layer, gated."""
    layer = recurrent_layer(author, return_sequences=author.chance(50))
    return gated(author, author.remember(layer, short(x)))


@step(3)
def recurrent_with_states(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    """Some of a recurrent layer's outputs, side by side."""
    layer = recurrent_layer(author, return_state=True)
    if author.chance(40):
        layer = layers.Bidirectional(layer)
    parts = layer(short(x))
    chosen = [gated(author, part) for part in parts if author.chance(60)] or [parts[-1]]
    return layers.Concatenate()(chosen) if len(chosen) > 1 else chosen[0]


@step(3)
def both_directions(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    """A recurrent layer in both directions, merged in any way."""
    inside = recurrent_layer(author, return_sequences=author.chance(50))
    mode = author.one_of(["concat", "concat", "sum", "mul", "ave", None])
    layer = layers.Bidirectional(inside, merge_mode=mode)
    if mode is not None:
        return gated(author, author.remember(layer, short(x)))
    parts = layer(short(x))
    return gated(author, author.one_of(parts))


@step(3, 4)
def at_every_step(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    """A layer that does the same at every time step."""
    options = [
        lambda: layers.Dense(author.count(), activation=author.one_of([None, "relu", "softplus"])),
        layers.BatchNormalization,
        lambda: layers.Activation(author.one_of(["tanh", "softplus"])),
        lambda: layers.Dropout(0.3),
    ]
    if len(x.shape) == 4:
        padding = author.one_of(["same", "valid"] if x.shape[2] >= 2 else ["same"])
        options += [
            lambda: layers.Conv1D(author.count(), 2, padding=padding),
            lambda: layers.MaxPooling1D(2, padding="same"),
            layers.Flatten,
            lambda: recurrent_layer(author, return_sequences=author.chance(50)),
            lambda: layers.TimeDistributed(layers.Dense(author.count())),
        ]
    layer = layers.TimeDistributed(author.one_of(options)())
    return gated(author, author.remember(layer, short(x)))


@step(4)
def convolutional(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    """A convolutional LSTM along axis 1."""
    layer = layers.ConvLSTM1D(
        author.one_of([2, 3, 4]),
        kernel_size=author.one_of([1, 2]),
        padding=author.one_of(["same", "valid"] if x.shape[2] >= 2 else ["same"]),
        use_bias=author.chance(70),
        return_sequences=author.chance(50),
    )
    return gated(author, author.remember(layer, short(x)))


def recurrent_layer(author: Author, **options: Any) -> keras.layers.Layer:
    kind = author.one_of([layers.LSTM, layers.GRU, layers.SimpleRNN])
    if kind is layers.GRU:
        options["reset_after"] = author.chance(50)
    return kind(
        author.count(),
        activation=author.one_of(ACTIVATIONS),
        use_bias=author.chance(70),
        unroll=author.chance(20),
        **options,
    )


def gated(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    if author.chance(60):  # squashing in every layer would leave little to compare
        x = layers.Rescaling(3.0)(x)
    return author.gate(x) if author.chance(60) else x


def short(x: keras.KerasTensor) -> keras.KerasTensor:
    """Pools the time axis, so that there are few steps."""
    if x.shape[1] <= LONGEST:
        return x
    size = math.ceil(x.shape[1] / LONGEST)
    if len(x.shape) == 3:
        return layers.AveragePooling1D(size, padding="same")(x)
    return layers.AveragePooling2D((size, 1), padding="same")(x)
