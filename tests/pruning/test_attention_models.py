"""Attention layers as users call them: gated by insert_sbp, heads removed physically."""

from __future__ import annotations

import keras
import pytest
from keras import Input, Model, layers

from keras_sbp.insertion import insert_sbp
from keras_sbp.layers import find_gates
from tests.pruning.oracle import assert_same_function, drop_units, gate, randomise


def attending(layer: layers.Layer, *, masked: bool = False, **call) -> keras.Model:
    sequence = Input((6, 8))
    inputs = [sequence]
    if masked:
        inputs.append(Input((6, 6), dtype="bool"))
        call["attention_mask"] = inputs[1]
    x = layer(sequence, sequence, **call)
    return Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


@pytest.mark.parametrize(
    ("options", "call"),
    [
        ({}, {}),
        ({"value_dim": 5}, {}),
        ({"dropout": 0.1}, {}),
        ({}, {"masked": True}),
        ({"dropout": 0.1}, {"masked": True}),
        ({}, {"use_causal_mask": True}),
    ],
)
def test_heads_go_from_all_four_projections(options: dict, call: dict) -> None:
    layer = layers.MultiHeadAttention(4, 6, name="attention", **options)
    model = randomise(insert_sbp(attending(layer, **call)), drop=0.0)
    (heads,) = [each for each in find_gates(model) if each.units == 4]
    drop_units(heads, [0, 2])
    small, report = assert_same_function(model)
    for part in ("query", "key", "value"):
        assert small.get_layer(f"attention_{part}").kernel.shape[1] == 2
    assert small.get_layer("attention_attention_output").kernel.shape[0] == 2
    assert report.macs_after < 0.7 * report.macs_before


def test_key_value_heads_go_with_the_last_of_their_query_heads() -> None:
    layer = layers.GroupQueryAttention(4, 4, 2, name="attention")
    model = randomise(insert_sbp(attending(layer)), drop=0.0)
    (heads,) = [each for each in find_gates(model) if each.units == 4]
    drop_units(heads, [0, 1, 2])
    small, _ = assert_same_function(model)
    assert small.get_layer("attention_query").kernel.shape[1] == 1
    assert small.get_layer("attention_key").kernel.shape[1] == 1


def test_shared_layer_on_sequences_of_different_length() -> None:
    a, b = Input((5, 4)), Input((6, 4))
    shared = layers.Dense(4, activation="relu")
    x = layers.Concatenate(axis=1)([gate()(shared(a)), gate()(shared(b))])
    assert_same_function(randomise(Model([a, b], layers.Dense(3)(gate(axis=1)(x)))))
