"""Models with a call() of their own: which arguments it may have, and what is said of others."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import Input, Model, layers, ops

from keras_sbp import prune
from keras_sbp.layers import SBPLayer
from keras_sbp.program import analyse, trace
from tests.pruning.oracle import drop_units

DATA = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")


class Net(keras.Model):
    """Two layers, and a gate that drops half of the units."""

    def __init__(self) -> None:
        super().__init__(name="net")
        self.supports_masking = True
        self.first, self.drop = layers.Dense(8, name="first"), layers.Dropout(0.5, name="drop")
        self.gate, self.last = SBPLayer(num_samples=9), layers.Dense(3, name="last")

    def compute(self, x, training=None):
        return self.last(self.gate(self.drop(self.first(x), training=training)))


class Positional(Net):
    def call(self, x, training):
        return self.compute(x, training)


class KeywordOnly(Net):
    def call(self, x, *, training):
        return self.compute(x, training)


class Annotated(Net):
    def call(self, x, training: bool | None, mask=None):
        return self.compute(x, training)


class Anything(Net):
    def call(self, x, *args, training=False, **kwargs):
        return self.compute(x, training)


@pytest.mark.parametrize("cls", [Positional, KeywordOnly, Annotated, Anything])
def test_training_needs_no_default(cls: type) -> None:
    model = cls()
    model(DATA, training=False)
    drop_units(model.gate, [0, 1, 2, 3])
    small, report = prune(model)
    assert small.get_layer("first").units == 4
    expected, received = model(DATA, training=False), small(DATA, training=False)
    assert np.allclose(expected, received, atol=1e-6)
    once, again = small(DATA, training=True), small(DATA, training=True)
    assert not np.allclose(once, again)  # dropout is still one


def test_training_of_a_layer_needs_no_default() -> None:
    class Block(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inner = layers.Dense(6)

        def build(self, shape):
            self.inner.build(shape)

        def call(self, x, training):
            return self.inner(x)

    features = Input((6,))
    model = Model(features, layers.Dense(2)(Block()(features, training=False)))
    assert not analyse(trace(model)).opaque


class WithMask(Net):
    def call(self, x, mask):
        return self.compute(x if mask is None else x * mask)


class WithMaskOrNot(Net):
    def call(self, x, mask=None):
        return self.compute(x if mask is None else x * mask)


class OfADict(keras.Model):
    """Hands on the entries of a dict as the arguments of another model."""

    def __init__(self, inner: Net) -> None:
        super().__init__(name="of_a_dict")
        self.inner = inner

    def call(self, inputs):
        return self.inner(inputs["x"], mask=inputs["mask"])


@pytest.mark.remedy("Wrap the model in one that takes a dict, or give arguments")
def test_remedies_for_several_arguments() -> None:
    model = WithMask()
    model(DATA, mask=np.ones_like(DATA))
    with pytest.raises(TypeError, match=r"arguments: x, mask\..*takes a dict, or .* mask=None"):
        trace(model)

    model = OfADict(model)
    model({"x": DATA, "mask": np.ones_like(DATA)})
    prune(model)

    model = WithMaskOrNot()
    model(DATA)
    prune(model)


@pytest.mark.tensorflow
@pytest.mark.parametrize("options", [{}, {"jit_compile": True}])
def test_remedy_for_a_call_under_tf_function(options: dict) -> None:
    import tensorflow as tf

    class Plain(Net):
        def call(self, x):
            return self.compute(x)

    class Compiled(Net):
        @tf.function(**options)
        def call(self, x):
            return self.compute(x)

    model = Compiled()
    model(DATA)
    with pytest.raises(TypeError, match="'net'.*with @tf.function: remove the decorator, since"):
        trace(model)

    model = Plain()
    model(DATA)
    prune(model)


def test_reason_of_a_layer_under_a_decorator() -> None:
    """A layer that is decorated is opaque, and the report says what to do."""

    def compiled(function: Callable) -> Callable:
        function.python_function = function  # as tf.function leaves it
        return function

    class Compiled(layers.Layer):
        @compiled
        def call(self, x):
            return x + 1

    features = Input((6,))
    model = Model(features, layers.Dense(2)(Compiled()(layers.Dense(6)(features))))
    [why] = analyse(trace(model)).opaque.values()
    assert "remove the decorator" in why


def as_boolean(x):
    return x if ops.sum(x) > 0 else -x


def as_array(x):
    return np.asarray(x)


def in_several_paragraphs(x):
    raise RuntimeError("It breaks off. Like this:\n\n```\nfirst line\n```\nsecond line")


def after_a_colon(x):
    raise RuntimeError("It says:\n\nthis\n\nArguments: x")


def in_a_long_sentence(x):
    raise RuntimeError("It says" + " and says" * 40)


class Failing(layers.Layer):
    def call(self, x):
        raise RuntimeError("It breaks off.")


@pytest.mark.parametrize(
    ("function", "end"),
    [
        (as_boolean, "it takes a tensor for a boolean)"),
        (as_array, "it takes a tensor for a NumPy array)"),
        (in_several_paragraphs, "(RuntimeError: It breaks off)"),
        (in_a_long_sentence, " and says" * 40 + ")"),
        (after_a_colon, "(RuntimeError: It says: this)"),
        (Failing(), "It breaks off)"),
    ],
)
def test_reason_of_a_failing_call_is_not_cut(function: Callable, end: str) -> None:
    class Odd(layers.Layer):
        fails = False

        def call(self, x):
            return function(x) if self.fails else x

    features, odd = Input((6,)), Odd()
    model = Model(features, layers.Dense(2)(odd(features)))
    odd.fails = True
    [why] = analyse(trace(model)).opaque.values()
    assert why.endswith(end)


@pytest.mark.tensorflow
def test_remedy_for_functions_of_tensorflow() -> None:
    import tensorflow as tf

    class OfTensorFlow(Net):
        def call(self, x):
            return tf.nn.relu(self.compute(x))

    class OfKeras(Net):
        def call(self, x):
            return ops.relu(self.compute(x))

    model = OfTensorFlow()
    model(DATA)
    with pytest.raises(TypeError, match="calls a TensorFlow function on a tensor.*and keras.ops"):
        trace(model)

    model = OfKeras()
    model(DATA)
    prune(model)
