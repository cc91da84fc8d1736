"""A traced program computes what the model does, and any tensor on the way."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import Input, Model, layers

from keras_sbp.insertion.gates import with_decisions
from keras_sbp.layers import deciding, find_gates
from keras_sbp.program import read, trace
from keras_sbp.program.run import run
from tests.pruning.oracle import gate, random_inputs, randomise
from tests.pruning.zoo import ZOO


def to_numpy(values) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(x) for x in values]


@pytest.mark.parametrize("name", ZOO)
def test_computes_what_the_model_computes(name: str) -> None:
    model = randomise(ZOO[name]())
    inputs = random_inputs(model)
    expected = to_numpy(keras.tree.flatten(model(inputs, training=False)))
    program = trace(model)
    values = run(program, inputs, program.outputs)
    for x, y in zip(expected, to_numpy(values[t] for t in program.outputs), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6 * np.abs(x).max())


@pytest.mark.parametrize("name", ["dense_chain", "lenet_5"])
def test_decided_program(name: str) -> None:
    model = randomise(ZOO[name]())
    inputs = random_inputs(model)
    decisions = {each: np.arange(each.units) % 3 > 0 for each in find_gates(model)}
    program = trace(model)
    with deciding(decisions):
        obeying = run(program, inputs, program.outputs)[program.outputs[0]]
        expected = model(inputs)
    decided = with_decisions(program, decisions)
    scaled = run(decided, inputs, program.outputs)[program.outputs[0]]
    for received in (obeying, scaled):
        np.testing.assert_allclose(*to_numpy([received, expected]), rtol=1e-4, atol=1e-5)


def test_gate_of_a_whole_tensor_as_a_scale() -> None:
    x = Input((5,))
    model = randomise(Model(x, layers.Dense(3)(gate(axis=())(layers.Dense(4)(x)))), drop=0)
    program, inputs = trace(model), random_inputs(model)
    program = with_decisions(program, {each: np.array([True]) for each in find_gates(model)})
    received = run(program, inputs, program.outputs)[program.outputs[0]]
    np.testing.assert_allclose(*to_numpy([received, model(inputs)]), rtol=1e-5, atol=1e-6)


class Counting(layers.Layer):
    calls = 0

    def call(self, x):
        self.calls += 1
        return x + 1.0


def test_runs_only_what_is_wanted() -> None:
    first, second = Counting(), Counting()
    x = Input((4,))
    model = Model(x, second(first(x)))
    program = read(model)
    before = first.calls, second.calls
    data = np.ones((2, 4), np.float32)
    middle = program.ops[0].outputs[0]
    values = run(program, data, [middle, program.inputs[0]])
    assert (first.calls, second.calls) == (before[0] + 1, before[1])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(values[middle]), data + 1)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(values[program.inputs[0]]), data)


def test_other_weights_for_one_run() -> None:
    x = Input((4,))
    dense = layers.Dense(2)
    model = Model(x, dense(x))
    program, data = trace(model), np.ones((1, 4), np.float32)
    before = keras.ops.convert_to_numpy(dense.kernel)
    values = run(program, data, program.outputs, [(dense.kernel, np.full((4, 2), 3.0))])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(values[program.outputs[0]]), [[12, 12]])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(dense.kernel), before)


def test_a_tensor_that_is_read_twice_by_one_call() -> None:
    x = Input((4,))
    y = layers.Dense(4)(x)
    model = Model(x, layers.Multiply()([y, y]))
    program, data = trace(model), random_inputs(model)
    values = run(program, data, program.outputs)
    np.testing.assert_allclose(
        *to_numpy([values[program.outputs[0]], model(data)]), rtol=1e-6, atol=1e-7
    )
