"""Who reads a gate's units, and which input features belong to which unit."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import Input, Model, layers

from keras_sbp.evidence.linear_readers import find_readers
from keras_sbp.layers import deciding, find_gates
from keras_sbp.program import trace
from keras_sbp.program.facts import linear_map
from keras_sbp.program.removal import Trials
from keras_sbp.program.run import run
from tests.pruning.oracle import gate, random_inputs, randomise
from tests.pruning.zoo import ZOO


def readers_of(model: Model, number: int = 0):
    program = trace(model)
    return find_readers(Trials(program), find_gates(model)[number])


def names(readers) -> tuple[list[str], dict[str, str]]:
    skipped = {op.name: reason for op, reason in readers.skipped.items()}
    return [reader.op.name for reader in readers.linear], skipped


def assert_vanishes(reader, unit: int, before: dict, after: dict) -> None:
    """Without the unit, its features stay the same over all inputs, and most others do not."""
    axis, tensor = linear_map(reader.op).feature_axis, reader.op.inputs[0]
    varied, varies = (np.ptp(features(x[tensor], axis), axis=0) > 0 for x in (before, after))
    own = reader.unit_of[: varied.size]
    assert not varies[own == unit].any()
    others = varied & (own != unit)
    assert varies[others].mean() > 0.8  # a ReLU may go off behind a changed norm


def features(values, axis: int) -> np.ndarray:
    x = keras.ops.convert_to_numpy(values)
    return np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])


@pytest.mark.parametrize("name", ZOO)
def test_features_vanish_with_their_unit_and_with_no_other(name: str) -> None:
    model = randomise(ZOO[name](), drop=0.0)
    program = trace(model)
    trials = Trials(program)
    inputs = random_inputs(model)
    gates = find_gates(model)
    everything = {each: np.ones(each.units, bool) for each in gates}
    readers = {each: find_readers(trials, each).linear for each in gates}
    read = {each: [reader.op.inputs[0] for reader in readers[each]] for each in gates}

    def values(decisions, tensors) -> dict:
        with deciding(decisions):
            return run(program, inputs, tensors)

    before = values(everything, sum(read.values(), []))
    for each in gates:
        several = each.units > 1 and readers[each]
        for unit in {0, each.units // 2, each.units - 1} if several else ():
            after = values(everything | {each: np.arange(each.units) != unit}, read[each])
            for reader in readers[each]:
                assert_vanishes(reader, unit, before, after)


def test_chain_of_convolution_pooling_flatten_and_dense() -> None:
    x = Input((8, 8, 2))
    y = gate()(layers.Conv2D(5, 3, activation="relu")(x))
    y = layers.Conv2D(6, 3, padding="same", name="conv")(y)
    y = gate()(layers.ReLU()(layers.BatchNormalization()(y)))
    y = layers.Flatten()(layers.Dropout(0.5)(layers.MaxPooling2D()(y)))
    model = Model(x, layers.Dense(3, name="dense")(y))
    first, second = readers_of(model, 0), readers_of(model, 1)
    assert names(first) == (["conv"], {})
    assert names(second) == (["dense"], {})
    np.testing.assert_array_equal(first.linear[0].unit_of, np.tile(np.arange(5), 9))
    np.testing.assert_array_equal(second.linear[0].unit_of, np.tile(np.arange(6), 9))


def test_normalisation_between_gate_and_reader() -> None:
    x = Input((8,))
    y = gate()(layers.Dense(5)(x))
    y = layers.ReLU()(layers.BatchNormalization()(y))
    assert names(readers_of(Model(x, layers.Dense(2, name="dense")(y)))) == (["dense"], {})


def test_two_readers_and_features_of_others() -> None:
    x = Input((8,))
    y = gate()(layers.Dense(5)(x))
    z = layers.Concatenate()([x, y, x])
    model = Model(x, [layers.Dense(2, name="one")(y), layers.Dense(2, name="two")(z)])
    one, two = sorted(readers_of(model).linear, key=lambda reader: reader.op.name)
    assert list(one.unit_of) == [0, 1, 2, 3, 4]
    assert list(two.unit_of) == [-1] * 8 + [0, 1, 2, 3, 4] + [-1] * 8


def test_a_gate_at_two_places() -> None:
    x = Input((8,))
    shared = gate()
    y = shared(layers.Dense(4)(x))
    y = shared(layers.Add()([y, layers.Dense(4, name="inner")(y)]))
    model = Model(x, layers.Dense(2, name="last")(y))
    assert names(readers_of(model))[0] == ["inner", "last"]


def test_single_unit() -> None:
    x = Input((8,))
    model = Model(x, layers.Dense(2)(gate()(layers.Dense(1)(x))))
    assert list(readers_of(model).linear[0].unit_of) == [0]


def test_what_is_skipped_and_why() -> None:
    x = Input((8, 8, 3))
    y = gate()(layers.Conv2D(4, 1)(x))
    both = layers.Conv2D(4, 1, name="both")
    model = Model(
        x,
        [
            layers.Conv2D(4, 1, groups=2, name="grouped")(y),
            layers.Softmax(name="softmax")(y),
            both(y),
            both(layers.Conv2D(4, 1)(x)),
            layers.Dense(2, name="linear")(y),
        ],
    )
    linear, skipped = names(readers_of(model))
    assert linear == ["linear"]
    assert "nor a convolution without groups" in skipped["grouped"]
    assert "several places" in skipped["both"]
    assert "Softmax is no Dense" in skipped["softmax"]


def test_positions_are_no_features() -> None:
    x = Input((6, 3))
    y = gate(axis=1)(layers.Dense(4)(x))
    readers = readers_of(Model(x, layers.Flatten()(layers.Dense(2, name="dense")(y))))
    assert not readers.linear


def test_gate_of_a_whole_tensor() -> None:
    x = Input((8,))
    model = Model(x, layers.Dense(2)(gate(axis=())(layers.Dense(4)(x))))
    assert names(readers_of(model)) == ([], {})
