"""Functional graphs with operators and `keras.ops` between the layers."""

from __future__ import annotations

import keras
import numpy as np
from keras import Input, Model, layers, ops

from tests.pruning.oracle import gate
from tests.pruning.zoo.registry import topology


def conv(filters, size=3, activation="relu", **kwargs):
    return layers.Conv2D(filters, size, padding="same", activation=activation, **kwargs)


def head(x):
    return layers.Dense(3)(layers.Flatten()(x))


@topology
def residual_block_with_operators():
    image = Input((8, 8, 3))
    x = gate()(conv(8)(image))
    for _ in range(2):
        y = layers.BatchNormalization()(gate()(conv(6)(x)))
        y = layers.Conv2D(8, 3, padding="same")(y)
        x = gate()(layers.ReLU()(x + 0.5 * layers.BatchNormalization()(y)))
    return Model(image, head(x))


@topology
def hard_swish_by_hand():
    image = Input((8, 8, 3))
    x = gate()(layers.BatchNormalization()(conv(8, activation=None)(image)))
    x = x * ops.relu6(x + 3.0) / 6
    x = gate()(conv(6, activation=None)(x))
    x = x * (ops.relu6(x + 3.0) * (1 / 6))
    return Model(image, head(x))


@topology
def squeeze_and_excite_by_operations():
    image = Input((8, 8, 3))
    x = gate()(conv(12)(image))
    squeezed = ops.mean(x, axis=(1, 2), keepdims=True)
    squeezed = gate()(layers.Conv2D(4, 1, activation="relu")(squeezed))
    x = x * ops.sigmoid(layers.Conv2D(12, 1)(squeezed))
    x = gate()(conv(6)(x))
    flat = ops.max(x, axis=[1, 2])
    weight = layers.Dense(6, activation="sigmoid")(layers.Dense(3, activation="relu")(flat))
    x = x * ops.reshape(weight, (-1, 1, 1, 6))
    return Model(image, head(x))


@topology
def spatial_attention():
    image = Input((6, 6, 3))
    x = gate()(conv(8)(image))
    seen = [ops.mean(x, axis=-1, keepdims=True), ops.max(x, axis=-1, keepdims=True)]
    x = x * layers.Conv2D(1, 3, padding="same", activation="sigmoid")(ops.concatenate(seen, -1))
    return Model(image, head(gate()(conv(5)(x))))


@topology
def split_and_joined_branches():
    image = Input((8, 8, 3))
    x = gate()(conv(12)(image))
    a, b, c, d = ops.split(x, [4, 6, 10], axis=-1)
    a = conv(4)(a)
    b = gate()(layers.BatchNormalization()(b))
    x = ops.concatenate([a, b - d, conv(4)(a + c)], axis=-1)
    first, second = ops.split(conv(8, activation="gelu")(gate()(x)), 2, axis=-1)
    x = gate()(first * ops.sigmoid(second))
    return Model(image, head(x))


@topology
def convnext_block_by_operations():
    image = Input((8, 8, 3))
    x = conv(6)(image)
    y = layers.DepthwiseConv2D(3, padding="same")(gate()(x))
    y = ops.transpose(y, (0, 3, 1, 2))
    y = ops.moveaxis(y, 1, -1)
    y = gate()(layers.Dense(12, activation="gelu")(y))
    scale = np.linspace(-0.5, 0.5, 6).astype(keras.config.floatx())
    x = x + layers.Dense(6)(y) * ops.cast(scale, keras.config.floatx())
    return Model(image, head(gate()(x)))


@topology
def channels_first_and_back():
    image = Input((6, 6, 3))
    x = gate()(conv(8, activation=None)(image))
    x = ops.swapaxes(ops.transpose(x, (0, 3, 1, 2)), 2, 3)
    x = ops.softplus(x) + np.arange(8, dtype=keras.config.floatx())[:, None, None] / 8
    x = ops.mean(x, axis=2)
    return Model(image, layers.Dense(3)(ops.reshape(x, (-1, 48))))


@topology
def slicing():
    image = Input((8, 8, 3))
    x = gate()(conv(12)(image))
    parts = [x[..., :4], x[:, :, :, 4:9:2], x[:, 1:-1, ::2, -2:], x[:, 0, 0, None, None, :]]
    outputs = [layers.Dense(4)(layers.Flatten()(part)) for part in parts]
    outputs.append(layers.Dense(4)(ops.max(x[..., 3] + x[..., 4], axis=1)))
    outputs.append(layers.Dense(4)(layers.Flatten()(x[..., ::-3])))
    return Model(image, layers.Dense(3)(ops.concatenate(outputs, axis=1)))


@topology
def slice_that_becomes_uneven():
    image = Input((4, 4, 3))
    x = gate()(conv(14)(image))
    # Of these every second one goes: what is left lies in unequal steps.
    picked = ops.take(x, [13, 0, 1, 0, 6, 12, -3], axis=-1)
    x = ops.concatenate([picked[..., 0:6:2] + x[..., 0:12:4], x], axis=-1)
    return Model(image, head(conv(5)(x)))


@topology
def channel_shuffle():
    image = Input((6, 6, 3))
    x = gate()(conv(8)(image))
    x = ops.reshape(x, (-1, 6, 6, 2, 4))
    x = ops.transpose(x, (0, 1, 2, 4, 3))
    x = ops.reshape(x, (-1, 6, 6, 8))
    return Model(image, head(gate()(conv(6)(x))))


@topology
def windows_in_the_batch():
    image = Input((8, 8, 3))
    x = gate()(conv(8)(image))
    x = ops.roll(x, (-2, -2), axis=(1, 2))
    x = ops.reshape(x, (-1, 2, 4, 2, 4, 8))
    x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 16, 8))
    x = gate()(layers.Dense(6, activation="relu")(x))
    x = layers.Dense(5)(ops.softmax(x, axis=1))
    x = ops.reshape(x, (-1, 2, 2, 4, 4, 5))
    x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 8, 8, 5))
    return Model(image, head(x))


@topology
def constants_of_many_kinds():
    features = Input((10,))
    x = gate()(layers.Dense(8)(features))
    row = np.linspace(-1, 1, 8).astype(keras.config.floatx())
    x = 2 - ops.maximum(x, 0.0) * row
    x = ops.minimum(x / ops.convert_to_tensor(row[None] + 3), row + 2.5)
    x = ops.where(row > 0, x, ops.exp(-ops.absolute(x)))
    x = ops.power(ops.abs(gate()(layers.Dense(6)(x))) + 0.1, 1.5) - 1 / (2 + row[:6] ** 2)
    return Model(features, layers.Dense(3)(x))


@topology
def constant_branches_by_operators():
    features = Input((10,))
    alive = layers.Dense(6)(gate()(features))
    dead = ops.sigmoid(gate(axis=())(layers.Dense(6)(features)))
    dead_too = ops.sigmoid(gate(axis=())(layers.Dense(6)(features)))
    x = gate()(ops.tanh(alive)) - dead_too
    return Model(features, layers.Dense(3)(dead_too - ((x / dead_too) * dead_too + dead)))


@topology
def padded_channels():
    """A residual network without projections: strides by slicing, channels by padding."""
    image = Input((8, 8, 3))
    x = gate()(conv(4)(image))
    y = gate()(conv(8, strides=2)(x))
    shortcut = ops.pad(x[:, ::2, ::2], [[0, 0], [0, 0], [0, 0], [2, 2]])
    x = gate()(ops.relu(y + shortcut))
    x = ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="reflect")
    return Model(image, head(layers.Conv2D(5, 3)(x)))


@topology
def padded_borders():
    image = Input((6, 6, 3))
    x = gate()(conv(8, activation=None)(image))
    x = ops.pad(ops.sigmoid(x), [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=0.5)
    return Model(image, head(layers.Conv2D(5, 3, activation="relu")(x)))


@topology
def stacked_and_unstacked():
    features = Input((10,))
    x = gate()(layers.Dense(6, activation="relu")(features))
    y = gate()(layers.Dense(6, activation="relu")(features))
    stacked = ops.stack([x, y, x - y, y], axis=1)
    a, b, _, d = ops.unstack(stacked, axis=1)
    total = ops.sum(stacked, axis=1) + ops.sum(stacked, axis=2, keepdims=True)[:, 0]
    x = ops.stack([a * b, d, total], axis=-1)
    return Model(features, layers.Dense(3)(layers.Flatten()(gate(axis=1)(x))))


@topology
def repeated_by_broadcasting():
    sequence = Input((5, 4))
    x = gate()(layers.Dense(6, activation="relu")(sequence))
    summary = ops.tile(ops.mean(x, axis=1, keepdims=True), (1, 5, 2))
    x = ops.concatenate([x, summary], axis=-1)
    position = np.linspace(-1, 1, 5).astype(keras.config.floatx())[None, :, None]
    x = gate()(layers.Dense(5)(ops.flip(x, axis=(1, 2)) + position))
    return Model(sequence, layers.Dense(3)(ops.sum(ops.squeeze(x[..., None], -1), axis=1)))


@topology
def statistics():
    image = Input((6, 6, 3))
    x = gate()(conv(8, activation="gelu")(image))
    both = (1, 2)
    results = [ops.mean(x, both), ops.sum(x, both), ops.max(x, both), ops.min(x, both)]
    results += [ops.std(x, both), ops.var(x, both), ops.median(x, both), ops.amax(x, both)]
    x = ops.expand_dims(ops.concatenate(results, axis=-1), (1, 2))
    x = ops.prod(ops.tanh(x) + 1.5, axis=(1, 2))
    return Model(image, layers.Dense(3)(gate()(layers.Dense(6)(x))))


@topology
def sequences_of_unknown_length():
    sequence = Input((None, 4))
    x = gate()(layers.Dense(6, activation="relu")(sequence))
    x = ops.expand_dims(x, 1) * ops.max(x[:, None], axis=2, keepdims=True)
    x = ops.squeeze(x, 1)[:, 1:-1]
    x = gate()(layers.Dense(6)(x)) + ops.max(x, axis=1, keepdims=True)
    x = ops.reshape(x, (-1, 3, 2))[:, :, ::-1]
    x = ops.reshape(x, (-1, 62, 6))
    return Model(sequence, layers.Dense(3)(ops.mean(x, axis=1)))


@topology
def mixed_precision_by_hand():
    features = Input((10,))
    x = gate()(layers.Dense(8, activation="relu")(features))
    x = ops.cast(ops.cast(x, "float64"), keras.config.floatx())
    x = x * ops.cast(ops.cast(features[:, :8], "int32") + 1, keras.config.floatx())
    return Model(features, layers.Dense(3)(x))


@topology
def thresholds():
    features = Input((10,))
    x = gate()(layers.Dense(8)(features))
    x = ops.where(x > 0.1, x, -x) + ops.cast(ops.greater(ops.sign(x), 0), x.dtype)
    return Model(features, layers.Dense(3)(gate()(layers.Dense(5)(x))))


@topology
def tokens_of_an_image_of_unknown_size():
    image = Input((None, None, 3))
    x = layers.Reshape((-1, 8))(gate()(conv(8)(image)))
    x = gate()(layers.Dense(6, activation="relu")(x))
    return Model(image, layers.Dense(3)(ops.max(x, axis=1)))
