"""Activation functions of the user's own: seen through where they act on each number alone."""

from __future__ import annotations

import keras
import pytest
from keras import Input, Model, layers, ops

from keras_sbp.layers import find_gates
from keras_sbp.program.activations import is_elementwise
from keras_sbp.pruning import prune
from tests.pruning.oracle import drop_units, gate, randomise

ON_EACH_NUMBER = {
    "swish": lambda x: x * ops.sigmoid(x),
    "gelu": lambda x: keras.activations.gelu(x, approximate=True),
    "squared relu": lambda x: ops.maximum(0.0, x) ** 2 + 1,
    "slope": lambda x: ops.leaky_relu(x, 0.2),
    "clipped": lambda x: ops.clip(x, -1, 1),
    "nothing": lambda x: x,
}
MIXING = {
    "centred": lambda x: x - ops.mean(x, axis=-1, keepdims=True),
    "softmax": ops.softmax,
    "reversed": lambda x: x[..., ::-1],
    "flipped": lambda x: ops.flip(x, -1),
    "product": lambda x: ops.matmul(x, ops.ones((5, 5))),
    "a number per unit": lambda x: x * [1.0, 2.0, 3.0, 4.0, 5.0],
    "summed": ops.sum,
    "jumps": ops.round,
    "no tensor": lambda x: 3.0,
    "fails": lambda x: x.no_such_thing,
}


@pytest.mark.parametrize("name", ON_EACH_NUMBER)
def test_acts_on_each_number(name: str) -> None:
    assert is_elementwise(ON_EACH_NUMBER[name])


@pytest.mark.parametrize("name", MIXING)
def test_does_not(name: str) -> None:
    assert not is_elementwise(MIXING[name])


def test_what_reads_a_variable_or_calls_a_layer_does_not() -> None:
    slope, layer = keras.Variable(0.5), layers.Dense(5)
    assert not is_elementwise(lambda x: x * slope)
    assert not is_elementwise(lambda x: layer(x))


def test_units_in_front_of_such_a_function_go() -> None:
    inputs = Input((6,))
    x = layers.Dense(8, activation=lambda x: x * ops.sigmoid(x), name="hidden")(inputs)
    model = randomise(Model(inputs, layers.Dense(3)(gate()(x))), drop=0.0)
    drop_units(find_gates(model)[0], [1, 4, 5])
    small, _ = prune(model)
    assert small.get_layer("hidden").units == 5
