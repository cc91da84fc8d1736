"""What is physically left of layers that are repeated at every time step."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import Input, Sequential, layers

from keras_sbp.program import macs, trace
from keras_sbp.program.handler import find_handler
from keras_sbp.pruning import prune
from tests.pruning.oracle import assert_same_function, gate, gated_sequential


def types(model: keras.Model) -> list[type]:
    return [type(layer) for layer in model.layers[1:]]


def test_layer_inside_is_narrowed_alone() -> None:
    model = gated_sequential(
        layers.TimeDistributed(layers.Conv1D(8, 2, name="inside"), name="conv"),
        gate(),
        layers.TimeDistributed(layers.Flatten()),
        layers.TimeDistributed(layers.Dense(3)),
        shape=(3, 5, 4),
    )
    small, _ = assert_same_function(model)
    assert types(small) == [layers.TimeDistributed] * 3
    assert small.get_layer("conv").layer.name == "inside"
    assert small.get_layer("conv").layer.filters == 4
    assert small.layers[-1].layer.kernel.shape == (16, 3)


def test_scales_pass_through_the_layer_inside() -> None:
    """Forwards to the next kernel; or backwards through it, into the kernel before."""
    model = gated_sequential(
        gate(),
        layers.TimeDistributed(layers.ReLU()),
        layers.TimeDistributed(layers.Dense(8)),
        layers.TimeDistributed(layers.ReLU()),
        gate(),
        layers.TimeDistributed(layers.Activation("tanh")),
        layers.TimeDistributed(layers.Dense(2)),
    )
    small, _ = assert_same_function(model)
    insides = [type(layer.layer) for layer in small.layers[1:]]
    assert insides == [layers.ReLU, layers.Dense, layers.ReLU, layers.Activation, layers.Dense]


def test_repairs_inside_make_a_small_model() -> None:
    model = gated_sequential(
        gate(), layers.TimeDistributed(layers.Activation("tanh")), layers.LSTM(4)
    )
    small, _ = assert_same_function(model)
    inside = small.layers[1].layer
    assert [type(layer) for layer in inside.layers[1:]] == [layers.Rescaling, layers.Activation]


def test_saving_and_loading(tmp_path) -> None:
    model = gated_sequential(
        gate(),
        layers.TimeDistributed(layers.Activation("tanh")),
        layers.TimeDistributed(layers.Dense(5)),
        gate(),
        layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
        layers.RNN(layers.GRUCell(4), return_sequences=True),
        gate(),
        layers.Bidirectional(layers.RNN(layers.SimpleRNNCell(3)), merge_mode="ave"),
    )
    small, _ = prune(model)
    small.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    x = np.random.default_rng(0).normal(size=(4, 5, 6)).astype("float32")
    np.testing.assert_array_equal(small(x), loaded(x))


def opaque_inside() -> keras.Model:
    inside = Sequential([Input((6,)), layers.Dense(3)], name="sequential")
    return Sequential([Input((5, 6)), layers.TimeDistributed(inside, name="it")])


def another_policy_inside() -> keras.Model:
    inside = layers.Dense(3, dtype="mixed_bfloat16")
    return Sequential([Input((5, 6)), layers.TimeDistributed(inside, name="it")])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (opaque_inside, "its layer 'sequential' is opaque (no handler for Sequential)"),
        (another_policy_inside, "the layer inside has another dtype policy"),
    ],
    ids=["opaque", "another policy"],
)
def test_opaque(make, reason: str) -> None:
    [op] = trace(make()).ops
    assert find_handler(op)[1] == reason
    assert macs(op) >= 0
