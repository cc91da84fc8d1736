"""What prune() refuses, how it says so, and that nothing is changed then."""

from __future__ import annotations

import threading

import keras
import numpy as np
import pytest
from keras import Input, Model, Sequential, layers

from keras_sbp.layers import find_gates
from keras_sbp.pruning import prune
from keras_sbp.rules import PosteriorRule
from tests.pruning.oracle import drop_units, gate, randomise


def small_net() -> keras.Model:
    return Sequential([Input((6,)), layers.Dense(8), gate(name="the_gate"), layers.Dense(3)])


@pytest.mark.parametrize("thing", [None, 3, "model.keras", layers.Dense(3), [small_net]])
def test_not_a_model(thing) -> None:
    with pytest.raises(TypeError, match=r"Expected a keras\.Model"):
        prune(thing)


def test_unbuilt_model() -> None:
    with pytest.raises(ValueError, match="'seq' is not built.*Call it once on data"):
        prune(Sequential([layers.Dense(8), gate(), layers.Dense(3)], name="seq"))


def test_subclassed_model_whose_call_cannot_be_read() -> None:
    class Mine(keras.Model):
        def __init__(self):
            super().__init__(name="mine")
            self.dense = layers.Dense(3)

        def call(self, x):
            return self.dense(x) if float(keras.ops.sum(x)) > 0 else 2 * self.dense(x)

    model = Mine()
    model(np.zeros((1, 4)))
    with pytest.raises(TypeError, match="'mine' .*defines its own call.*fails on symbolic inputs"):
        prune(model, inputs=Input((4,)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_posterior(bad: float) -> None:
    model = randomise(small_net())
    weights = find_gates(model)[0].get_weights()
    weights[0][[1, 4]] = bad
    find_gates(model)[0].set_weights(weights)
    with pytest.raises(ValueError, match="the_gate.*2"):
        prune(model)


def test_everything_pruned() -> None:
    model = randomise(small_net())
    drop_units(find_gates(model)[0], list(range(8)))
    before = model.get_weights()
    with pytest.raises(ValueError, match="'the_gate'.*KL was too strong.*KLWarmup") as caught:
        prune(model)
    assert "would not depend on the input" in str(caught.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize(
    "head", [layers.Softmax(), layers.Activation("softmax"), layers.Activation(lambda x: 2 * x)]
)
def test_everything_pruned_under_a_head_that_is_opaque(head) -> None:
    model = small_net()
    model.add(head)
    drop_units(find_gates(model)[0], list(range(8)))
    with pytest.raises(ValueError, match="would not depend on the input"):
        prune(model)


def test_everything_pruned_under_a_softmax_in_the_last_layer() -> None:
    model = Sequential([Input((6,)), layers.Dense(8), gate(), layers.Dense(3, "softmax")])
    drop_units(find_gates(model)[0], list(range(8)))
    with pytest.raises(ValueError, match="would not depend on the input"):
        prune(model)


def test_one_of_several_outputs_constant() -> None:
    features = Input((6,))
    alive = layers.Dense(2, name="alive")(features)
    dead = layers.Dense(2, name="dead")(gate()(layers.Dense(4)(features)))
    model = randomise(Model(features, [alive, dead]))
    drop_units(find_gates(model)[0], [0, 1, 2, 3])
    with pytest.raises(ValueError, match="would not depend on the input"):
        prune(model)


def test_constant_output_without_a_gate_blames_the_weights() -> None:
    model = small_net()
    model.layers[-1].kernel.assign(np.zeros((8, 3)))
    with pytest.raises(ValueError, match="weights that are all zero"):
        prune(model)


def test_nan_in_a_layer_is_said_by_verification() -> None:
    model = randomise(small_net())
    kernel = np.ones((6, 8))
    kernel[2, 3] = np.nan
    model.layers[0].kernel.assign(kernel)
    drop_units(find_gates(model)[0], [0])
    with pytest.raises(RuntimeError, match="is not finite"):
        prune(model)
    small, report = prune(model, verify=False)
    assert report.max_abs_error is None
    assert np.isnan(keras.ops.convert_to_numpy(small.layers[1].kernel)).sum() == 1


def test_nan_in_a_dropped_unit_goes_with_it() -> None:
    model = randomise(small_net())
    kernel = np.ones((6, 8))
    kernel[2, 3] = np.nan
    model.layers[0].kernel.assign(kernel)
    drop_units(find_gates(model)[0], [3])
    small, _ = prune(model, verify=False)
    assert all(np.isfinite(weight).all() for weight in small.get_weights())


def test_model_that_is_random_at_inference() -> None:
    features = Input((6,))
    x = gate()(layers.Dense(8)(features))
    x = layers.Lambda(lambda t: t + keras.random.normal((8,)), output_shape=(8,))(x)
    model = randomise(Model(features, layers.Dense(3)(x)))
    with pytest.raises(RuntimeError, match="changes from call to call"):
        prune(model)
    prune(model, verify=False)


def test_rule_with_a_wrong_answer() -> None:
    class Broken(PosteriorRule):
        def keep(self, posterior):
            return np.ones(3)

    with pytest.raises(ValueError, match="'the_gate' must return one boolean per unit"):
        prune(small_net(), Broken())


def test_layer_that_cannot_be_copied() -> None:
    class Stubborn(keras.layers.Layer):
        def __init__(self, function, **kwargs):
            super().__init__(**kwargs)
            self.held = function
            self.lock = threading.Lock()

        def call(self, x, training=None):
            return x if training else self.held(x)

    class Described(Stubborn):
        def get_config(self):
            return super().get_config() | {"function": self.held}

    def model_with(odd):
        return Sequential([Input((6,)), layers.Dense(8), odd, layers.Dense(3)])

    with pytest.raises(ValueError, match=r"'odd' .*(.|\n)*Give the class a get_config\(\)"):
        prune(model_with(Stubborn(keras.ops.square, name="odd")))
    prune(model_with(Described(keras.ops.square, name="odd")))


def test_verification_catches_a_wrong_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    from keras_sbp.program import slim

    monkeypatch.setattr(slim.Slim, "absorbed", lambda self, axis: np.zeros(self.source.shape[axis]))
    model = randomise(
        Sequential(
            [Input((6,)), layers.Dense(8), gate(), layers.Activation("sigmoid"), layers.Dense(3)]
        ),
        drop=0.5,
    )
    with pytest.raises(RuntimeError, match="differs from the original's by"):
        prune(model)
    _, report = prune(model, verify=False)
    assert report.max_abs_error is None


def test_layer_without_units() -> None:
    features = Input((6,))
    nothing = layers.Lambda(lambda x: x[:, 6:], name="nothing")(features)
    x = gate()(layers.Dense(8, activation="relu")(features))
    y = layers.Dense(8, name="of_nothing")(nothing)
    model = randomise(Model(features, layers.Dense(3)(layers.Add()([x, y]))), drop=0.0)
    drop_units(find_gates(model)[0], [0, 1])
    _, report = prune(model)
    reason = next(row.reason for row in report.layers if row.name == "of_nothing")
    assert reason == "opaque: one of its sizes is 0"


def test_compiled_eager_model_comes_back_uncompiled() -> None:
    model = randomise(small_net())
    model.compile("adam", "mse", run_eagerly=True)
    small, _ = prune(model)
    assert not small.compiled and model.compiled and model.run_eagerly


def test_frozen_layers_names_and_policies_are_kept() -> None:
    model = Sequential(
        [
            Input((6,), name="features"),
            layers.Dense(8, name="frozen", dtype="float64"),
            gate(),
            layers.Dense(3, name="free"),
        ]
    )
    model.get_layer("frozen").trainable = False
    small, _ = prune(randomise(model))
    assert [layer.name for layer in small.layers] == ["features", "frozen", "free"]
    assert not small.get_layer("frozen").trainable and small.get_layer("free").trainable
    assert small.get_layer("frozen").dtype_policy.name == "float64"
    assert small.get_layer("free").dtype_policy.name == "float32"
