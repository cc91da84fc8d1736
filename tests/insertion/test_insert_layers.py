"""Where insert_sbp puts gates around shared, mixing, recurrent and attention layers."""

from __future__ import annotations

import pytest
from keras import Input, Model, Sequential, layers

import keras_sbp
from tests.insertion.gate_map import gate_map, units_after_half

IMAGE = (8, 8, 3)


def head(inputs, x) -> Model:
    if len(x.shape) > 2:
        x = layers.Flatten(name="flatten")(x)
    return Model(inputs, layers.Dense(5, name="head")(x))


def test_layer_that_is_called_twice_has_one_gate_called_twice() -> None:
    encoder = Sequential(
        [
            Input(IMAGE),
            layers.Conv2D(8, 3, padding="same", name="first"),
            layers.ReLU(name="relu"),
            layers.Conv2D(6, 3, name="second"),
        ],
        name="encoder",
    )
    a, b = Input(IMAGE), Input(IMAGE)
    x = layers.Concatenate()([layers.Flatten()(encoder(a)), layers.Flatten()(encoder(b))])
    gated = keras_sbp.insert_sbp(head([a, b], x))
    assert gate_map(gated) == {
        "first_gate": ["relu", "relu"],
        "second_gate": ["second", "second"],
    }
    assert units_after_half(gated) == {"first": 4, "second": 3}


def test_layer_that_reads_several_layers_ties_them() -> None:
    inputs = Input(IMAGE)
    shared = layers.Conv2D(6, 3, padding="same", name="shared")
    y = layers.Conv2D(8, 3, padding="same", activation="relu", name="a")(inputs)
    z = layers.Conv2D(8, 5, padding="same", activation="relu", name="b")(inputs)
    model = head(inputs, layers.Concatenate()([shared(y), shared(z)]))
    gated = keras_sbp.insert_sbp(model)
    assert gate_map(gated) == {"shared_gate": ["shared", "shared"]}
    assert units_after_half(gated) == {"shared": 3}
    gated = keras_sbp.insert_sbp(model, tie_residual=True)
    assert sorted(gate_map(gated)["b_gate"]) == ["a", "b"]
    assert units_after_half(gated) == {"a": 4, "b": 4, "shared": 3}


def test_normalisation_that_mixes_units_is_gated_behind() -> None:
    inputs = Input((6,))
    x = layers.Dense(8, name="first")(inputs)
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.Dense(8, name="second")(layers.ReLU(name="relu")(x))
    x = layers.RMSNormalization(name="rms")(x)
    gated = keras_sbp.insert_sbp(head(inputs, x))
    assert gate_map(gated) == {"first_gate": ["relu"], "second_gate": ["second"]}
    # LayerNormalization needs all that it normalises; RMSNormalization can do without zeros.
    assert units_after_half(gated) == {"second": 4, "rms": 4}


@pytest.mark.kernel("channels_first")
def test_channels_first() -> None:
    inputs = Input((3, 7, 9))
    x = layers.Conv2D(8, 3, data_format="channels_first", padding="same", name="conv")(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(axis=1, name="bn")(x))
    x = layers.GlobalAveragePooling2D(data_format="channels_first")(x)
    gated = keras_sbp.insert_sbp(head(inputs, x))
    assert gate_map(gated) == {"conv_gate": ["relu"]}
    assert gated.get_layer("conv_gate").axis == 1
    assert units_after_half(gated)["conv"] == 4


def test_embedding_in_front_of_recurrent_layers() -> None:
    inputs = Input((10,), dtype="int32")
    x = layers.Embedding(50, 8, name="embedding")(inputs)
    x = layers.LSTM(6, return_sequences=True, name="lstm")(x)
    x = layers.GRU(4, name="gru")(x)
    gated = keras_sbp.insert_sbp(head(inputs, x))
    assert gate_map(gated) == {"embedding_gate": ["embedding"]}
    assert units_after_half(gated)["embedding"] == 4


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_attention(dropout: float) -> None:
    inputs = Input((7, 8))
    x = layers.MultiHeadAttention(4, 6, dropout=dropout, name="attention")(inputs, inputs)
    model = head(inputs, x)
    heads = keras_sbp.insert_sbp(model)
    (before,) = gate_map(heads)["attention_heads_gate"]
    assert "dot_product" in before or "einsum" in before
    gate = heads.get_layer("attention_heads_gate")
    assert (gate.axis, gate.units) == (2, 4)
    assert "attention_width_gate" not in gate_map(heads)

    both = keras_sbp.insert_sbp(model, attention="heads+width")
    assert both.get_layer("attention_width_gate").units == 6
    pruned = units_after_half(both)
    assert (pruned["attention_query"], pruned["attention_key"]) == (3, 3)
    assert "attention_value" not in pruned

    neither = keras_sbp.insert_sbp(model, attention=None)
    assert list(gate_map(neither)) == ["attention_attention_output_gate"]


def test_dead_heads_leave_query_key_value_and_output() -> None:
    inputs = Input((7, 8))
    x = layers.MultiHeadAttention(4, 6, name="attention")(inputs, inputs)
    gated = keras_sbp.insert_sbp(head(inputs, x), exclude="attention_output")
    gated.get_layer("attention_heads_gate").set_posterior(0.0, [-3.0, 3.0, 3.0, -3.0])
    small, _ = keras_sbp.prune(gated)
    for name in ("query", "key", "value"):
        assert small.get_layer(f"attention_{name}").kernel.shape == (8, 2, 6)
    assert small.get_layer("attention_attention_output").kernel.shape == (2, 6, 8)


def test_query_heads_that_share_a_key_have_the_gate() -> None:
    inputs = Input((7, 8))
    attention = layers.GroupQueryAttention(6, 4, 2, name="attention")
    gated = keras_sbp.insert_sbp(head(inputs, attention(inputs, inputs)))
    assert gated.get_layer("attention_heads_gate").units == 4
    assert len(gate_map(gated)) == 2  # and the output projection's
