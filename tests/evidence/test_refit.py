"""Least squares behind pruned gates repairs the network, and never makes a layer worse."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import Input, Model, layers

from keras_sbp.evidence.linear_readers import find_readers
from keras_sbp.evidence.moments import Meter, State
from keras_sbp.evidence.refit import reweight
from keras_sbp.layers import find_gates
from keras_sbp.program import trace
from keras_sbp.program.removal import Trials
from tests.evidence.redundant import (
    REDUNDANT,
    data_for,
    dense_chain,
    outputs,
    pruned,
    relative_error,
    with_marks,
)
from tests.pruning.oracle import gate, randomise


def drop(model: Model, every: int = 3) -> dict:
    return {each: np.arange(each.units) % every > 0 for each in find_gates(model)}


def reweighted(gated: Model, decisions: dict, data: np.ndarray) -> tuple:
    program = trace(gated)
    return reweight(Trials(program), decisions, data)


@pytest.mark.parametrize("name", REDUNDANT)
def test_second_copies_are_not_missed(name: str) -> None:
    model = REDUNDANT[name]()
    gated, data = with_marks(model), data_for(model)
    decisions = {each: np.arange(each.units) < each.units // 2 for each in find_gates(gated)}
    fresh = data_for(model, seed=1)
    assert relative_error(model, pruned(gated, decisions, None), fresh) > 1e-3
    assert relative_error(model, pruned(gated, decisions, data), fresh) < 1e-6


@pytest.mark.parametrize("name", REDUNDANT)
def test_no_reader_does_worse_than_with_its_old_weights(name: str) -> None:
    gated = with_marks(REDUNDANT[name]())
    program, data = trace(gated), data_for(gated)
    trials = Trials(program)
    decisions = {each: np.arange(each.units) % 4 > 1 for each in find_gates(gated)}
    new = reweight(trials, decisions, data)
    assert new
    values = {id(variable): value for variable, value in new}
    for each in decisions:
        for reader in find_readers(trials, each).linear:
            layer = reader.op.operation
            if id(layer.kernel) not in values:
                continue
            [measured] = Meter(program, data).measure(
                [reader], State(decisions, new), State.original(program)
            )
            weights = values[id(layer.kernel)].reshape(-1, layer.kernel.shape[-1])
            if layer.use_bias:
                weights = np.concatenate([weights, values[id(layer.bias)][None]])
            assert measured.all.error(weights) <= measured.all.error(measured.weights)


def test_rows_of_removed_units_and_the_variables_stay_as_they_are() -> None:
    gated, data = with_marks(dense_chain()), data_for(dense_chain())
    decisions = drop(gated)
    before = [keras.ops.convert_to_numpy(w) for w in gated.weights]
    new = reweighted(gated, decisions, data)
    for old, weight in zip(before, gated.weights, strict=True):
        np.testing.assert_array_equal(old, keras.ops.convert_to_numpy(weight))
    kernels = [(v, value) for v, value in new if len(v.shape) == 2]
    for (variable, value), keep in zip(kernels, decisions.values(), strict=True):
        old = keras.ops.convert_to_numpy(variable)
        np.testing.assert_array_equal(old[~keep], value[~keep])
        assert (old[keep] != value[keep]).any(axis=1).all()


def test_nothing_removed_changes_nothing() -> None:
    model = dense_chain()
    gated, data = with_marks(model), data_for(model)
    decisions = {each: np.ones(each.units, bool) for each in find_gates(gated)}
    small = pruned(gated, decisions, data)
    np.testing.assert_allclose(outputs(small, data), outputs(model, data), atol=1e-4)


def test_few_examples_do_not_make_it_worse() -> None:
    x = Input((60,))
    y = layers.Dense(80, activation="relu")(x)
    model = randomise(Model(x, layers.Dense(5)(y)))
    gated, data = with_marks(model), data_for(model, 40)  # half as many as features
    fresh = data_for(model, 500, seed=1)
    decisions = drop(gated)
    before = relative_error(model, pruned(gated, decisions, None), fresh)
    assert relative_error(model, pruned(gated, decisions, data), fresh) < before


def test_constants_other_than_0_behind_normalisation() -> None:
    x = Input((10,))
    y = gate()(layers.Dense(9)(x))
    y = layers.ReLU()(layers.BatchNormalization()(y))
    model = randomise(Model(x, layers.Dense(5, use_bias=False)(y)), drop=0)
    data, decisions = data_for(model), drop(model)
    before = relative_error(model, pruned(model, decisions, None), data)
    expected = outputs(model, data)
    small = pruned(model, decisions, data)
    after = ((expected - outputs(small, data)) ** 2).sum() / expected.var(0).sum() / len(data)
    assert after < before


def test_shared_layers_are_left_alone() -> None:
    x = Input((10,))
    shared = layers.Dense(3)
    y, z = gate()(layers.Dense(6)(x)), layers.Dense(6)(x)
    model = randomise(Model(x, layers.Concatenate()([shared(y), shared(z)])))
    assert reweighted(model, drop(model), data_for(model)) == ()


def test_a_reader_of_two_gates() -> None:
    x = Input((10,))
    y = gate()(layers.Dense(9, activation="relu")(x))
    z = gate()(layers.Dense(8, activation="relu")(x))
    last = layers.Dense(4)
    model = randomise(Model(x, last(layers.Concatenate()([y, z]))), drop=0)
    decisions = drop(model)
    new = {id(v): value for v, value in reweighted(model, decisions, data_for(model))}
    old, kernel = keras.ops.convert_to_numpy(last.kernel), new[id(last.kernel)]
    keep = np.concatenate([decisions[each] for each in find_gates(model)])
    if find_gates(model)[0].units != 9:
        keep = np.roll(keep, 9)
    np.testing.assert_array_equal((old == kernel).all(axis=1), ~keep)
