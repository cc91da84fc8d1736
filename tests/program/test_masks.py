"""A mask that is passed as an argument makes a layer opaque, and is what the reason says."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import Input, Model, layers

from keras_sbp import prune
from keras_sbp.program import analyse, trace
from tests.pruning.oracle import gate, randomise

READERS = {
    "gru": lambda: layers.GRU(4, name="reader"),
    "rnn": lambda: layers.RNN(layers.SimpleRNNCell(4), name="reader"),
    "bidirectional": lambda: layers.Bidirectional(layers.LSTM(4), name="reader"),
    "time_distributed": lambda: layers.TimeDistributed(layers.Dense(4), name="reader"),
    "average": lambda: layers.GlobalAveragePooling1D(name="reader"),
    "normalization": lambda: layers.BatchNormalization(name="reader"),
}


def masked(reader: layers.Layer) -> Model:
    steps, mask = Input((5, 6)), Input((5,), dtype="bool")
    x = gate()(layers.Dense(8, activation="relu")(steps))
    return Model([steps, mask], layers.Dense(3)(reader(x, mask=mask)))


def why_opaque(model: Model) -> str:
    return next(why for op, why in analyse(trace(model)).opaque.items() if op.name == "reader")


@pytest.mark.parametrize("name", READERS)
def test_mask_as_an_argument(name: str) -> None:
    model = masked(READERS[name]())
    assert why_opaque(model) == "it is called with a mask"
    randomise(model)
    small, _ = prune(model, verify=False)  # which draws masks of nothing, too
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(4, 5, 6)), np.arange(5) < rng.integers(1, 6, (4, 1))]
    expected, received = (keras.ops.convert_to_numpy(each(data)) for each in (model, small))
    assert np.allclose(expected, received, atol=1e-5)


def test_initial_states_are_another_reason() -> None:
    steps = Input((5, 6))
    state = layers.Dense(4)(steps[:, 0])
    model = Model(steps, layers.GRU(4, name="reader")(steps, initial_state=state))
    assert why_opaque(model) == "it is given initial states"


def test_mask_of_keras_is_another_reason() -> None:
    words = Input((5,))
    model = Model(
        words, layers.GRU(4, name="reader")(layers.Embedding(9, 6, mask_zero=True)(words))
    )
    assert why_opaque(model) == "its input carries a Keras mask"
