"""insert_sbp puts no gate where a removed unit could not go, and says why."""

from __future__ import annotations

from collections.abc import Callable

import keras
import pytest
from keras import Input, Model, layers

import keras_sbp
from keras_sbp.layers import find_gates
from tests.insertion.gate_map import gate_map

RECURRENT: dict[str, Callable[[], layers.Layer]] = {
    "LSTM": lambda: layers.LSTM(6, name="units"),
    "GRU": lambda: layers.GRU(6, name="units"),
    "SimpleRNN": lambda: layers.SimpleRNN(6, name="units"),
    "sequences": lambda: layers.GRU(6, return_sequences=True, name="units"),
    "RNN": lambda: layers.RNN(layers.GRUCell(6), name="units"),
    "cells": lambda: layers.RNN([layers.GRUCell(4), layers.GRUCell(6)], name="units"),
    "Bidirectional": lambda: layers.Bidirectional(layers.LSTM(6), name="units"),
    "summed": lambda: layers.Bidirectional(layers.LSTM(6), merge_mode="sum", name="units"),
    "stateful": lambda: layers.GRU(6, stateful=True, name="units"),
    "softmax": lambda: layers.Dense(6, "softmax", name="units"),
    "convolution": lambda: layers.Conv1D(6, 1, activation="softmax", name="units"),
    "einsum": lambda: layers.EinsumDense("abc,cd->abd", (5, 6), activation="softmax", name="units"),
    "steps": lambda: layers.TimeDistributed(layers.Dense(6, "softmax"), name="units"),
}


def between_dense(layer: layers.Layer) -> Model:
    steps = Input((5, 4), batch_size=2)
    x = layer(layers.Dense(8, name="first")(steps))
    return Model(steps, layers.Dense(2, name="last")(x))


@pytest.mark.parametrize("name", RECURRENT)
def test_no_gate_on_units_that_the_layer_itself_needs(name: str) -> None:
    model = between_dense(RECURRENT[name]())
    if name in ("cells", "stateful"):  # opaque: the layer in front stays whole, too
        gated, refused = [], "'units'"
    else:
        gated = list(gate_map(keras_sbp.insert_sbp(model)))
        refused = r"'units' \(\w+\) computes all of its units as long as one of them stays"
    assert gated == ([] if name in ("cells", "stateful") else ["first_gate"])
    with pytest.raises(ValueError, match=f"'units', but cannot: {refused}"):
        keras_sbp.insert_sbp(model, layers="units")


def test_no_gate_on_convolutional_recurrence() -> None:
    frames = Input((3, 6, 2))
    x = layers.ConvLSTM1D(4, 3, return_sequences=True, name="units")(frames)
    x = layers.TimeDistributed(layers.Conv1D(6, 3), name="conv")(x)
    model = Model(frames, layers.Dense(2)(layers.Flatten()(x)))
    assert list(gate_map(keras_sbp.insert_sbp(model))) == ["conv_gate"]


def test_units_that_go_alone_get_a_gate() -> None:
    """Where each unit reads itself only, the others can go."""
    model = between_dense(layers.SimpleRNN(6, recurrent_initializer="identity", name="units"))
    assert list(gate_map(keras_sbp.insert_sbp(model))) == ["first_gate", "units_gate"]


NORMALISATIONS = {
    "groups": lambda: layers.GroupNormalization(2),
    "groups_of_positions": lambda: layers.GroupNormalization(2, axis=1),
    "layer": lambda: layers.LayerNormalization(),
    "layer_positions": lambda: layers.LayerNormalization(axis=1),
    "layer_both": lambda: layers.LayerNormalization(axis=[1, 2]),
    "rms_both": lambda: layers.RMSNormalization(axis=[1, 2]),
    "unit_both": lambda: layers.UnitNormalization(axis=[1, 2]),
    "batch_positions": lambda: layers.BatchNormalization(axis=1),
    "softmax_positions": lambda: layers.Softmax(axis=1),
    "softmax_both": lambda: layers.Softmax(axis=(1, 2)),
}


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("name", NORMALISATIONS)
def test_gates_are_on_channels_and_never_on_positions(name: str, place: int) -> None:
    row = [
        layers.Conv1D(8, 3, padding="same", name="first"),
        layers.Conv1D(4, 1, name="second"),
    ]
    row.insert(place, NORMALISATIONS[name]())
    model = keras.Sequential([Input((6, 2)), *row, layers.Flatten(), layers.Dense(2)])
    gates = find_gates(keras_sbp.insert_sbp(model))
    assert {(gate.axis, gate.units) for gate in gates} <= {(-1, 8), (-1, 4)}
    assert {gate.name for gate in gates} <= {"first_gate", "second_gate"}


def test_channels_of_a_normalisation_behind_a_permutation() -> None:
    steps = Input((6, 3))
    x = layers.Dense(8, name="first")(steps)
    x = layers.GroupNormalization(2, axis=1)(layers.Permute((2, 1))(x))
    x = layers.GlobalAveragePooling1D(data_format="channels_first")(x)
    [gate] = find_gates(keras_sbp.insert_sbp(Model(steps, layers.Dense(2)(x))))
    assert (gate.name, gate.axis, gate.units) == ("first_gate", 1, 8)
