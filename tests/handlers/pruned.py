"""Pruning a small model in one line."""

from __future__ import annotations

import keras
from keras import Input, Sequential, layers

from keras_sbp.layers import find_gates
from tests.pruning.oracle import assert_same_function, drop_units, randomise


def pruned(model: keras.Model, *drops: list[int], **dead_weights: list[int]) -> keras.Model:
    """Prunes after each gate dropped its units; `dead_weights` names gammas that are 0."""
    randomise(model, drop=0.0)
    for each, units in zip(find_gates(model), drops, strict=True):
        drop_units(each, units)
    for name, units in dead_weights.items():
        gamma = keras.ops.convert_to_numpy(model.get_layer(name).gamma).copy()
        gamma[units] = 0.0
        model.get_layer(name).gamma.assign(gamma)
    return assert_same_function(model)[0]


def image_network(*parts: keras.layers.Layer) -> keras.Model:
    return Sequential([Input((8, 8, 3)), *parts, layers.Flatten(), layers.Dense(3)])


def kinds(model: keras.Model) -> list[str]:
    return [type(operation).__name__ for operation in model.operations[1:]]
