"""Recurrent layers, alone, in both directions, and layers repeated at every time step."""

from __future__ import annotations

import keras
from keras import Input, Model, Sequential, layers

from tests.pruning.oracle import gate
from tests.pruning.zoo.registry import topology


def shifted_gate() -> list[keras.layers.Layer]:
    """Removed units become constants other than 0."""
    return [gate(), layers.Activation("softplus")]


@topology
def stacked_lstms():
    return Sequential(
        [
            Input((5, 6)),
            gate(),
            layers.LSTM(8, return_sequences=True),
            gate(),
            layers.LSTM(6, return_sequences=True, go_backwards=True),
            *shifted_gate(),
            layers.LSTM(5),
            gate(),
            layers.Dense(3),
        ]
    )


@topology
def stacked_grus_of_both_conventions():
    return Sequential(
        [
            Input((5, 6)),
            layers.Dense(8),
            *shifted_gate(),
            layers.GRU(8, return_sequences=True),
            *shifted_gate(),
            layers.GRU(6, reset_after=False, return_sequences=True),
            *shifted_gate(),
            layers.GRU(5),
            layers.Dense(3),
        ]
    )


@topology
def simple_rnns_of_unusual_activations():
    return Sequential(
        [
            Input((5, 6)),
            layers.Dense(8),
            *shifted_gate(),
            layers.SimpleRNN(8, activation="softmax", return_sequences=True),
            *shifted_gate(),
            layers.SimpleRNN(6, activation="relu", return_sequences=True, unroll=True),
            gate(),
            layers.LSTM(6, activation="softsign", recurrent_activation="hard_sigmoid"),
            gate(),
            layers.Dense(3),
        ]
    )


@topology
def constants_into_recurrent_layers_without_bias():
    sequence = Input((5, 6))
    x = sequence
    for layer in (layers.LSTM, layers.GRU, layers.SimpleRNN):
        x = layers.Dense(8)(x)
        for each in shifted_gate():
            x = each(x)
        x = layer(7, use_bias=False, return_sequences=True)(x)
    x = gate()(layers.GRU(4, use_bias=False, reset_after=False)(x))
    return Model(sequence, layers.Dense(3)(x))


@topology
def recurrent_layers_of_unknown_length():
    return Sequential(
        [
            Input((None, 6)),
            gate(),
            layers.Bidirectional(layers.LSTM(6, return_sequences=True)),
            *shifted_gate(),
            layers.TimeDistributed(layers.Dense(5)),
            *shifted_gate(),
            layers.GRU(5),
            gate(),
            layers.Dense(3),
        ]
    )


@topology
def states_that_are_read():
    sequence = Input((5, 6))
    x = gate()(sequence)
    y, hidden, carry = layers.LSTM(8, return_sequences=True, return_state=True)(x)
    y = gate()(y)
    _, last = layers.GRU(6, return_state=True)(y)
    parts = [gate()(hidden), gate()(carry), gate()(last)]
    return Model(sequence, [layers.Dense(3)(x) for x in parts])


@topology
def initial_states_are_kept_whole():
    sequence = Input((5, 6))
    x = gate()(layers.Dense(8)(sequence))
    _, *states = layers.LSTM(7, return_state=True)(x)
    y = layers.LSTM(7)(gate()(layers.Dense(8)(sequence)), initial_state=states)
    return Model(sequence, layers.Dense(3)(gate()(y)))


@topology
def both_directions_of_every_merge_mode():
    sequence = Input((5, 6))
    x = gate()(layers.Dense(8)(sequence))
    outputs = []
    for merge_mode in ("concat", "sum", "mul", "ave", None):
        y = layers.Bidirectional(layers.GRU(6, return_sequences=True), merge_mode=merge_mode)(x)
        parts = y if merge_mode is None else [y]
        outputs += [layers.GRU(3)(gate()(part)) for part in parts]
    return Model(sequence, layers.Dense(3)(layers.Concatenate()(outputs)))


@topology
def both_directions_with_states_and_layers_of_their_own():
    sequence = Input((5, 6))
    x = layers.Activation("softplus")(gate()(layers.Dense(8)(sequence)))
    forward = layers.LSTM(6, return_sequences=True, return_state=True)
    backward = layers.LSTM(
        6,
        activation="relu",
        use_bias=False,
        go_backwards=True,
        return_sequences=True,
        return_state=True,
    )
    y, *states = layers.Bidirectional(forward, backward_layer=backward)(x)
    y = layers.Bidirectional(layers.RNN(layers.SimpleRNNCell(4)), merge_mode="sum")(gate()(y))
    parts = [gate()(y), *[gate()(state) for state in states]]
    return Model(sequence, layers.Dense(3)(layers.Concatenate()(parts)))


@topology
def cells_in_a_plain_recurrent_layer():
    sequence = Input((5, 6))
    x = layers.Dense(8)(sequence)
    for each in shifted_gate():
        x = each(x)
    cells = [
        layers.LSTMCell(6),
        layers.GRUCell(6, use_bias=False),
        layers.GRUCell(6, reset_after=False),
        layers.SimpleRNNCell(6, activation="relu"),
    ]
    parts = [gate()(layers.RNN(cell)(x)) for cell in cells]
    return Model(sequence, layers.Dense(3)(layers.Concatenate()(parts)))


@topology
def stacked_cells_are_kept_whole():
    return Sequential(
        [
            Input((5, 6)),
            layers.Dense(8, activation="relu"),
            gate(),
            layers.Dense(5),
            layers.RNN([layers.GRUCell(5), layers.SimpleRNNCell(4)]),
            gate(),
            layers.Dense(3),
        ]
    )


@topology
def shared_recurrent_layers():
    first, second = Input((5, 6)), Input((5, 6))
    lstm = layers.LSTM(7, return_sequences=True)
    both = layers.Bidirectional(layers.GRU(5))
    step = layers.TimeDistributed(layers.Dense(6, activation="gelu"))
    x = both(gate()(step(gate()(lstm(gate()(first))))))
    y = both(gate()(step(gate()(lstm(gate()(second))))))
    return Model([first, second], layers.Dense(3)(layers.Concatenate()([gate()(x), gate()(y)])))


@topology
def convolutional_lstms():
    return Sequential(
        [
            Input((3, 6, 5, 2)),
            layers.TimeDistributed(layers.Conv2D(8, 2)),
            *shifted_gate(),
            layers.ConvLSTM2D(6, 2, return_sequences=True),
            *shifted_gate(),
            layers.ConvLSTM2D(6, 3, padding="same", strides=2, return_sequences=True),
            gate(),
            layers.Bidirectional(layers.ConvLSTM2D(4, 2, use_bias=False)),
            gate(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


@topology
def convolutional_lstm_with_states():
    sequence = Input((4, 7, 6))
    x = layers.Activation("softplus")(gate()(layers.Dense(8)(sequence)))
    y, hidden, carry = layers.ConvLSTM1D(6, 3, return_state=True)(x)
    parts = [layers.GlobalMaxPooling1D()(gate()(part)) for part in (y, hidden, carry)]
    return Model(sequence, layers.Dense(3)(layers.Concatenate()(parts)))


@topology
def images_in_time():
    return Sequential(
        [
            Input((3, 8, 8, 2)),
            layers.TimeDistributed(layers.Conv2D(8, 3)),
            layers.TimeDistributed(layers.BatchNormalization()),
            *shifted_gate(),
            layers.TimeDistributed(layers.Conv2D(6, 3, padding="same", activation="relu")),
            gate(),
            layers.TimeDistributed(layers.MaxPooling2D()),
            layers.TimeDistributed(layers.Flatten()),
            layers.TimeDistributed(layers.Dense(8, activation="relu")),
            gate(),
            layers.LSTM(5),
            gate(),
            layers.Dense(3),
        ]
    )


@topology
def sequences_in_time():
    return Sequential(
        [
            Input((3, 4, 6)),
            layers.TimeDistributed(layers.TimeDistributed(layers.Dense(8))),
            *shifted_gate(),
            layers.TimeDistributed(layers.Bidirectional(layers.GRU(6))),
            *shifted_gate(),
            layers.TimeDistributed(layers.Reshape((4, 3))),
            layers.TimeDistributed(layers.LSTM(5)),
            gate(),
            layers.LSTM(4),
            layers.Dense(3),
        ]
    )
