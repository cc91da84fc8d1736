"""What is physically left of recurrent layers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import Input, Model, Sequential, layers

from keras_sbp.program import macs, trace
from keras_sbp.program.handler import find_handler
from keras_sbp.pruning import prune
from tests.pruning.oracle import assert_same_function, drop_units, gate, gated_sequential, randomise


def connect(layer: keras.layers.Layer, links: list[tuple[int, int, int]]) -> None:
    """Leaves only these recurrent weights: (unit that is read, gate, unit that reads it)."""
    kernel = np.zeros((layer.units, layer.cell.kernel.shape[-1] // layer.units, layer.units))
    for source, number, reader in links:
        kernel[source, number, reader] = 0.7
    layer.cell.recurrent_kernel.assign(kernel.reshape(layer.units, -1))


def types(model: keras.Model) -> list[type]:
    return [type(layer) for layer in model.layers[1:]]


def test_constants_go_into_the_bias_without_further_layers() -> None:
    recurrent = layers.LSTM(5, name="recurrent")
    model = gated_sequential(
        layers.Dense(8), gate(), layers.Activation("softplus"), recurrent, layers.Dense(2)
    )
    small, _ = assert_same_function(model)
    assert types(small) == [layers.Dense, layers.Activation, layers.LSTM, layers.Dense]
    assert small.get_layer("recurrent").cell.kernel.shape == (4, 20)


@pytest.mark.parametrize("reset_after", [True, False])
def test_constants_make_a_bias_where_there_was_none(reset_after: bool) -> None:
    recurrent = layers.GRU(5, use_bias=False, reset_after=reset_after, name="gru")
    model = gated_sequential(
        layers.Dense(8), gate(), layers.Activation("softplus"), recurrent, layers.Dense(2)
    )
    small, _ = assert_same_function(model)
    bias = small.get_layer("gru").cell.bias
    assert bias.shape == ((2, 15) if reset_after else (15,))
    assert not reset_after or not keras.ops.any(bias[1])


def test_pending_scale_goes_into_the_kernel() -> None:
    model = gated_sequential(gate(), layers.LSTM(5), layers.Dense(2))
    small, _ = assert_same_function(model)
    assert types(small) == [layers.LSTM, layers.Dense]


@pytest.mark.parametrize(
    ("kind", "gates"), [(layers.LSTM, 4), (layers.GRU, 3), (layers.SimpleRNN, 1)]
)
def test_units_that_are_read_indirectly_stay(kind: type, gates: int) -> None:
    recurrent = kind(6, return_sequences=True, name="recurrent")
    model = gated_sequential(recurrent, gate(), layers.SimpleRNN(4), layers.Dense(2))
    # The gate keeps 0, 2 and 4. Unit 2 reads 5, which reads 3; nobody needed reads 1.
    connect(recurrent, [(5, gates - 1, 2), (3, gates // 2, 5), (0, 0, 1)])
    small, _ = assert_same_function(model)
    cell = small.get_layer("recurrent").cell
    assert cell.units == 5
    assert cell.kernel.shape == (6, 5 * gates)
    assert cell.recurrent_kernel.shape == (5, 5 * gates)
    assert cell.bias.shape[-1] == 5 * gates


@pytest.mark.parametrize("name", ["activation", "recurrent_activation"])
def test_activations_that_mix_units_keep_all(name: str) -> None:
    recurrent = layers.LSTM(6, name="lstm", **{name: "softmax"})
    model = gated_sequential(recurrent, gate(), layers.Dense(2))
    connect(recurrent, [])
    small, _ = assert_same_function(model)
    assert small.get_layer("lstm").units == 6


@pytest.mark.parametrize(("mode", "units"), [("concat", 5), ("sum", 4), ("mul", 4), (None, 5)])
def test_both_directions_keep_the_same_units(mode: str | None, units: int) -> None:
    sequence = Input((5, 6))
    both = layers.Bidirectional(layers.GRU(6), merge_mode=mode, name="both")
    y = both(sequence)
    x, reader = layers.Concatenate()(y) if mode is None else y, gate()
    model = randomise(Model(sequence, layers.Dense(2)(reader(x))), drop=0.0)
    kept = {"concat": [0, 2, 7], None: [0, 2, 7]}.get(mode, [0, 2])
    drop_units(reader, [unit for unit in range(reader.units) if unit not in kept])
    connect(both.forward_layer, [(4, 2, 0)])
    connect(both.backward_layer, [(5, 0, 2)])
    for direction, feature in ((both.forward_layer, 1), (both.backward_layer, 4)):
        kernel = np.array(direction.cell.kernel)
        kernel[[feature, 5]] = 0
        direction.cell.kernel.assign(kernel)
    small, _ = assert_same_function(model)
    new = small.get_layer("both")
    assert new.forward_layer.units == new.backward_layer.units == units
    # Feature 5 reaches neither direction; 1 and 4 reach one.
    [op] = [op for op in trace(model).ops if op.name == "both"]
    [needs] = find_handler(op)[0].needs(op, [{}] * len(op.outputs), [{}])
    assert list(needs[2]) == [True, True, True, True, True, False]


def test_a_state_alone_can_be_read() -> None:
    sequence = Input((5, 6))
    lstm, reader = layers.LSTM(6, return_state=True, name="lstm"), gate()
    _, _, carry = lstm(sequence)
    model = randomise(Model(sequence, layers.Dense(2)(reader(carry))), drop=0.0)
    drop_units(reader, [0, 1, 2])
    connect(lstm, [(1, 3, 4)])
    small, _ = assert_same_function(model)
    assert small.get_layer("lstm").units == 4


def test_filters_and_channels_of_convolutional_lstms() -> None:
    recurrent = layers.ConvLSTM1D(6, 2, name="recurrent")
    model = gated_sequential(
        layers.Dense(8),
        gate(),
        layers.Activation("softplus"),
        recurrent,
        gate(),
        layers.Flatten(),
        layers.Dense(2),
        shape=(3, 5, 2),
    )
    kernel = np.zeros((2, 6, 4, 6))
    kernel[1, 3, 1, 2] = 0.7
    recurrent.cell.recurrent_kernel.assign(kernel.reshape(2, 6, 24))
    small, _ = assert_same_function(model)
    assert small.get_layer("recurrent").cell.kernel.shape == (2, 4, 4 * 4)
    assert small.get_layer("recurrent").cell.recurrent_kernel.shape == (2, 4, 4 * 4)


def test_padded_convolutional_lstm_keeps_constants() -> None:
    model = gated_sequential(
        layers.Dense(8),
        gate(),
        layers.Activation("softplus"),
        layers.ConvLSTM1D(6, 3, padding="same", name="recurrent"),
        layers.Flatten(),
        layers.Dense(2),
        shape=(3, 5, 2),
    )
    small, _ = assert_same_function(model)
    assert small.get_layer("recurrent").cell.kernel.shape == (3, 8, 24)


@pytest.mark.parametrize("sequences", [True, False])
def test_channels_first(sequences: bool) -> None:
    layer = layers.ConvLSTM2D(
        6, 2, data_format="channels_first", return_sequences=sequences, return_state=True
    )
    image = Input((3, 8, 7, 5))
    outputs = layer(image)
    [op] = trace(Model(image, outputs)).ops
    handler, reason = find_handler(op)
    assert reason is None
    needed = [{2 if sequences else 1: np.arange(6) < 2}, None, {1: np.arange(6) == 5}]
    layer.cell.kernel.assign(keras.ops.zeros_like(layer.cell.kernel))
    layer.cell.recurrent_kernel.assign(keras.ops.zeros_like(layer.cell.recurrent_kernel))
    kernel = np.zeros((2, 2, 8, 4, 6))
    kernel[1, 0, 3, 2, 5] = kernel[0, 1, 6, 0, 1] = kernel[0, 1, 7, 0, 2] = 1
    layer.cell.kernel.assign(kernel.reshape(2, 2, 8, 24))
    [needs] = handler.needs(op, needed, [{}])
    assert {axis: list(np.flatnonzero(keep)) for axis, keep in needs.items()} == {2: [3, 6]}
    assert macs(op) == 2 * 2 * (8 + 6) * 24 * 6 * 4 * 3


def test_config_survives() -> None:
    first = layers.LSTM(
        6,
        dropout=0.1,
        recurrent_dropout=0.2,
        kernel_regularizer="l2",
        recurrent_constraint="max_norm",
        go_backwards=True,
        return_sequences=True,
        unroll=True,
        use_cudnn=False,
        name="first",
        trainable=False,
    )
    second = layers.Bidirectional(
        layers.GRU(4, recurrent_regularizer="l1", implementation=1, use_cudnn=False), name="second"
    )
    small, _ = assert_same_function(gated_sequential(gate(), first, gate(), second))
    new = small.get_layer("first")
    assert new.use_cudnn is False and new.cell.implementation == first.cell.implementation
    assert not new.trainable_weights
    assert {**new.get_config(), "units": 0} == {**first.get_config(), "units": 0}
    both = small.get_layer("second")
    assert both.forward_layer.get_config() == second.forward_layer.get_config()
    assert both.backward_layer.get_config() == second.backward_layer.get_config()
    assert both.forward_layer.use_cudnn is both.backward_layer.use_cudnn is False
    assert all(new.path in old.path for new, old in zip(both.weights, second.weights, strict=True))


def test_activations_need_not_be_registered() -> None:
    def halved(x):
        return x / 2

    model = gated_sequential(
        gate(), layers.LSTM(5, activation=halved, recurrent_activation=halved), layers.Dense(2)
    )
    small, _ = assert_same_function(model)
    assert small.layers[1].recurrent_activation is halved


def stateful() -> keras.Model:
    sequence = Input(batch_shape=(2, 5, 6))
    return Model(sequence, layers.Bidirectional(layers.LSTM(3, stateful=True), name="it")(sequence))


def with_initial_state() -> keras.Model:
    sequence, state = Input((5, 6)), Input((3,))
    return Model([sequence, state], layers.GRU(3, name="it")(sequence, initial_state=state))


def stacked_cells() -> keras.Model:
    cells = [layers.GRUCell(3), layers.LSTMCell(3)]
    return Sequential([Input((5, 6)), layers.RNN(cells, name="it")])


class AnotherCell(layers.LSTMCell):
    def call(self, inputs, states, training=False):
        return super().call(inputs + 1, states, training)


class LooksLikeAnLSTM(layers.LSTM):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.cell = AnotherCell(units)


def cell_of_its_own() -> keras.Model:
    return Sequential([Input((5, 6)), LooksLikeAnLSTM(3, name="it")])


def activation_layer() -> keras.Model:
    return Sequential([Input((5, 6)), layers.LSTM(3, activation=layers.PReLU(), name="it")])


def different_widths() -> keras.Model:
    backward = layers.GRU(4, go_backwards=True, return_sequences=True)
    both = layers.Bidirectional(
        layers.GRU(3, return_sequences=True), backward_layer=backward, merge_mode=None, name="it"
    )
    sequence = Input((5, 6))
    return Model(sequence, both(sequence)[0])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (stateful, "it is stateful"),
        (with_initial_state, "it is given initial states"),
        (stacked_cells, "its cell is a StackedRNNCells"),
        (cell_of_its_own, "its cell is a AnotherCell"),
        (activation_layer, "its activation is a layer"),
        (different_widths, "its directions differ in width"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_opaque(make, reason: str) -> None:
    model = make()
    [op] = [op for op in trace(model).ops if op.name == "it"]
    assert find_handler(op)[1].startswith(reason)
    assert macs(op) >= 0


def test_macs_by_hand() -> None:
    model = Sequential(
        [
            Input((5, 6)),
            layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both"),
            layers.TimeDistributed(layers.Dense(4), name="steps"),
            layers.RNN([layers.GRUCell(3), layers.SimpleRNNCell(2)], name="stacked"),
        ]
    )
    by_name = {op.name: macs(op) for op in trace(model).ops}
    assert by_name["both"] == 2 * 5 * (6 + 3) * 4 * 3
    assert by_name["steps"] == 5 * 6 * 4
    assert by_name["stacked"] == 5 * ((4 + 3) * 3 * 3 + (3 + 2) * 2)


@pytest.mark.parametrize("policy", ["mixed_float16", "float16"])
def test_half_precision(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    model = gated_sequential(
        gate(), layers.TimeDistributed(layers.Dense(6)), gate(), layers.Bidirectional(layers.GRU(5))
    )
    small, report = prune(model)
    assert small.output.dtype == "float16"
    assert report.max_abs_error < 0.02
