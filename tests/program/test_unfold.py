"""Composite layers and models with a call of their own become graphs, or stay whole."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import Input, Model, Sequential, layers, ops

from keras_sbp._keras import sublayers
from keras_sbp.program import analyse, trace
from keras_sbp.pruning import prune
from tests.pruning.oracle import assert_same_function, drop_units, gate, randomise


class Composite(layers.Layer):
    """A layer made of a Dense layer; tests override what it does with it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(6, name="inner")

    def build(self, shape):
        self.inner.build(shape)


class Residual(Composite):
    def call(self, x):
        return x + ops.relu(self.inner(x))


def around(layer: keras.layers.Layer, features: int = 6) -> keras.Model:
    return Sequential([Input((features,)), layer, layers.Dense(3, name="last")])


def names(model: keras.Model) -> list[str]:
    return [op.name for op in trace(model).ops if op.name.endswith(("inner", "odd"))]


def reason(model: keras.Model) -> str:
    return next(why for op, why in analyse(trace(model)).opaque.items() if op.name == "odd")


def test_names_are_paths() -> None:
    class Outer(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.first, self.second = Residual(name="first"), Residual(name="second")

        def build(self, shape):
            self.first.build(shape)
            self.second.build(shape)

        def call(self, x):
            return self.second(self.first(x))

    assert names(around(Outer(name="outer"))) == ["outer/first/inner", "outer/second/inner"]


def test_layer_names_of_the_small_model_are_traceable_and_unique() -> None:
    model = Sequential([Input((6,)), Residual(name="a"), Residual(name="b"), layers.Dense(2)])
    small, report = prune(model)
    assert {"a_inner", "b_inner"} <= {layer.name for layer in small.layers}
    assert {"a/inner", "b/inner"} <= {row.name for row in report.layers}


def test_the_model_is_left_as_it_was() -> None:
    model = around(Residual(name="odd"))
    everything = [model, *sublayers(model)]
    before = [
        (len(layer._inbound_nodes), len(layer._outbound_nodes), layer.losses)
        for layer in everything
    ]
    weights = model.get_weights()
    trace(model)
    after = [
        (len(layer._inbound_nodes), len(layer._outbound_nodes), layer.losses)
        for layer in everything
    ]
    assert before == after
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))
    with pytest.raises(AttributeError):  # as before: inner was never called symbolically
        _ = model.layers[0].inner.output


def test_trial_calls_change_no_state() -> None:
    class Counting(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.calls = self.add_weight(shape=(), name="calls", initializer="zeros")

        def call(self, x):
            self.calls.assign(self.calls + 1)
            return x

    model = Sequential([Input((6,)), Counting(), layers.Dense(3)])
    trace(model)
    assert ops.convert_to_numpy(model.layers[0].calls) == 0


def test_layer_called_twice_keeps_one_set_of_weights() -> None:
    features = Input((6,))
    shared = Residual(name="shared")
    model = Model(features, layers.Dense(3)(shared(shared(features))))
    ops_of_inner = [op for op in trace(model).ops if op.name == "shared/inner"]
    assert len(ops_of_inner) == 2 and all(op.shared for op in ops_of_inner)
    small, _ = prune(model)
    assert small.count_params() == model.count_params()


class InTraining(Composite):
    def call(self, x, training=None):
        return self.inner(x) * 2 if training else self.inner(x)


class DropsItselfInTraining(Composite):
    def call(self, x, training=None):
        return x if training else self.inner(x)


class OwnWeight(Composite):
    def build(self, shape):
        super().build(shape)
        self.scale = self.add_weight(shape=(6,), name="scale", initializer="ones")

    def call(self, x):
        return self.inner(x) * self.scale


class OwnWeightInDisguise(OwnWeight):
    def call(self, x):
        return self.inner(x) * (self.scale * 1.0)


class Branching(Composite):
    def compute_output_shape(self, shape):
        return shape

    def call(self, x):
        return self.inner(x) if float(ops.sum(x)) > 0 else x


class Choosing(Branching):
    def call(self, x):
        return self.inner(x) if ops.sum(x) > 0 else x


class OnTheHost(Branching):
    def call(self, x):
        return self.inner(x) * float(np.max(x))


class Drawing(Composite):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, x):
        return self.inner(x) + keras.random.normal((6,), seed=self.seeds)


class Remembering(Composite):
    """Does something else when it is called on numbers."""

    def call(self, x):
        return self.inner(x) + (0.0 if isinstance(x, keras.KerasTensor) else 1.0)


class Assigning(Composite):
    def build(self, shape):
        super().build(shape)
        self.calls = self.add_weight(shape=(), name="calls", initializer="zeros", trainable=False)

    def call(self, x):
        self.calls.assign(self.calls + 1)
        return self.inner(x)


class Losing(Composite):
    def call(self, x):
        self.add_loss(ops.sum(x))
        return self.inner(x)


class Constant(Composite):
    def call(self, x):
        return ops.ones((2, 6))


@pytest.mark.parametrize(
    ("cls", "why"),
    [
        (InTraining, "computes something else in training"),
        (DropsItselfInTraining, "computes something else in training"),
        (OwnWeight, "weights of its own: scale"),
        (OwnWeightInDisguise, "weights of its own: scale"),
        (Branching, "fails on symbolic inputs (it takes a tensor for a float)"),
        (Choosing, "fails on symbolic inputs (it takes a tensor for a boolean)"),
        (OnTheHost, "fails on symbolic inputs (it takes a tensor for a NumPy array)"),
        (Drawing, "draws random numbers"),
        (Remembering, "does not reproduce its outputs"),
        (Assigning, "changes variables"),
        (Losing, "fails on symbolic inputs"),
        (Constant, "something else than tensors computed from its inputs"),
    ],
)
def test_what_might_not_be_the_same_stays_whole(cls: type, why: str) -> None:
    model = Sequential([Input((6,)), cls(name="odd"), layers.Dense(3)])
    assert why in reason(model)


def test_activity_regularizer_stays_whole() -> None:
    layer = Residual(name="odd", activity_regularizer="l2")
    assert "activity regularizer" in reason(around(layer))


def test_called_with_training_true_stays_whole() -> None:
    class WithDropout(Composite):
        def call(self, x, training=None):
            return self.inner(x)

    features = Input((6,))
    model = Model(features, WithDropout(name="odd")(features, training=True))
    assert "training=True" in reason(model)


def test_training_by_default_is_not_called_the_users_word() -> None:
    image = Input((8, 8, 3))
    x = layers.Flatten()(layers.RandomFlip(name="odd")(image))
    why = reason(Model(image, layers.Dense(3)(x)))
    assert "its call() has training=True by default" in why
    assert "it is called with" not in why


def test_dropout_inside_stays_dropout() -> None:
    class WithDropout(Composite):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dropout = layers.Dropout(0.5, name="dropout")

        def call(self, x, training=None):
            return self.dropout(self.inner(x), training=training)

    small, _ = prune(around(WithDropout(name="block")))
    assert any(isinstance(layer, layers.Dropout) for layer in small.layers)
    x = np.ones((64, 6), "float32")
    assert not np.allclose(small(x, training=True), small(x, training=False))


def test_frozen_stays_frozen() -> None:
    layer = Residual(name="odd")
    layer.trainable = False
    small, _ = prune(around(layer))
    assert not small.get_layer("odd_inner").trainable
    assert small.get_layer("last").trainable


def test_mixed_precision_casts_at_the_border() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    small, _ = prune(around(Residual(name="odd")))
    assert small.get_layer("odd_inner").compute_dtype == "bfloat16"


def test_lambda_is_read_like_any_layer() -> None:
    square = layers.Lambda(lambda x: ops.square(x) + 1.0)
    model = Sequential([Input((6,)), layers.Dense(8), gate(), square, layers.Dense(3)])
    randomise(model, drop=0.0)
    drop_units(model.layers[1], [2, 3])
    small, _ = assert_same_function(model)
    assert "lambda" not in {type(layer).__name__.lower() for layer in small.layers}


def test_sizes_known_to_the_layer_are_known_inside() -> None:
    sequence = Input((10, 16))
    x = layers.MultiHeadAttention(4, 8, name="attention")(sequence, sequence)
    model = Model(sequence, layers.Dense(3)(layers.Flatten()(x)))
    program = trace(model)
    query = next(op for op in program.ops if op.name == "attention/query")
    assert query.outputs[0].shape == (None, 10, 4, 8)
    small, _ = prune(model)
    assert small.output_shape == (None, 3)


# Models with a call of their own


class Net(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stem = layers.Dense(8, activation="relu", name="stem")
        self.gate = gate(name="gate")
        self.block = Residual(name="block")
        self.narrow = layers.Dense(6, name="narrow")
        self.head = layers.Dense(3, name="head")

    def call(self, x, training=None):
        x = self.gate(self.stem(x), training=training)
        return self.head(self.block(self.narrow(x)))


def test_subclassed_model_becomes_a_functional_one() -> None:
    model = Net(name="net")
    model(np.zeros((1, 5), "float32"))
    randomise(model, drop=0.0)
    drop_units(model.gate, [0, 4])
    small, report = prune(model)
    assert isinstance(small, keras.Model) and type(small).__name__ == "Functional"
    assert small.get_layer("stem").units == 6
    assert report.max_abs_error < 1e-5
    x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    assert np.allclose(model(x), small(x), atol=1e-5)
    assert small.name == "net"


def test_inputs_of_a_subclassed_model_may_be_given() -> None:
    class Pair(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = layers.Dense(4, name="a"), layers.Dense(4, name="b")

        def build(self, shape):
            self.built = True

        def call(self, inputs):
            return self.a(inputs["x"]) + self.b(inputs["y"])

    model = Pair()
    model({"x": np.zeros((1, 3)), "y": np.zeros((1, 2))})
    inputs = {"x": Input((3,), name="x"), "y": Input((2,), name="y")}
    small, _ = prune(model, inputs=inputs)
    assert {x.name for x in small.inputs} == {"x", "y"}


def test_inputs_in_a_dict_are_known_from_the_first_call() -> None:
    class Pair(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = layers.Dense(4, name="a"), layers.Dense(4, name="b")

        def call(self, inputs):
            return self.a(inputs["x"]) + self.b(inputs["y"])

    model = Pair()
    model({"x": np.zeros((1, 3)), "y": np.zeros((1, 2))})
    small, _ = prune(model)
    assert {x.name for x in small.inputs} == {"x", "y"}


def test_functional_subclass_with_its_own_call() -> None:
    class Twice(Model):
        def call(self, x, training=None, mask=None):
            return 2 * super().call(x, training=training, mask=mask)

    features = Input((4,))
    model = Twice(features, layers.Dense(3)(features))
    small, _ = prune(model)
    x = np.ones((2, 4), "float32")
    assert np.allclose(model(x), small(x))


def test_inputs_for_a_functional_model_are_refused() -> None:
    with pytest.raises(ValueError, match=r"has inputs of its own.*inputs=None"):
        trace(Sequential([Input((3,)), layers.Dense(2)]), inputs=Input((3,)))


def test_model_of_several_arguments_is_refused() -> None:
    class Two(keras.Model):
        def __init__(self):
            super().__init__(name="two")
            self.dense = layers.Dense(2)

        def call(self, a, b):
            return self.dense(a) + self.dense(b)

    model = Two()
    model(np.zeros((1, 3)), np.zeros((1, 3)))
    with pytest.raises(TypeError, match=r"'two'.*several arguments: a, b"):
        trace(model)


def test_scalars_among_a_layers_arguments() -> None:
    class Shift(layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(6, activation="relu")

        def call(self, x, by):
            return self.dense(x) + by

    inputs = keras.Input((4,))
    x = layers.Dense(6, activation="relu")(inputs)
    x = gate()(Shift()(x, keras.ops.mean(inputs)))
    model = randomise(keras.Model(inputs, layers.Dense(2)(x)), drop=0.0)
    [call] = [op for op in trace(model).ops if op.path == "shift/" and "dense" in op.operation.name]
    assert call.outputs[0].shape == (None, 6)
    _, report = prune(model)
    assert report.max_abs_error < 1e-5
