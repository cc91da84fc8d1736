"""GradualPruning: on schedule to the target, whatever the training looks like."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest

import keras_sbp
from keras_sbp.callbacks import GradualPruning

X = np.random.default_rng(0).normal(size=(36, 6)).astype("float32")
Y = X[:, :2]
HALF = keras_sbp.Budget(macs=0.5)

pytestmark = pytest.mark.usefixtures("optimizers_built_first")


@pytest.fixture(autouse=True)
def quiet(recwarn):
    """Gates that train so shortly are barely trained, and a warning says so."""


@functools.cache
def compiled_model():
    """One model for all tests: compiling takes most of the time."""
    inputs = keras.Input((6,))
    x = keras.layers.Dense(8, activation="relu", name="first")(inputs)
    x = keras_sbp.SBPLayer(name="first_gate", num_samples=36)(x)
    x = keras.layers.Dense(6, activation="relu", name="second")(x)
    x = keras_sbp.SBPLayer(name="second_gate", num_samples=36)(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    model.compile("adam", "mse")
    return model, model.get_weights()


@pytest.fixture
def model():
    """The model as new, with gates that tell units apart."""
    model, weights = compiled_model()
    model.set_weights(weights)
    model.stop_training = False
    for gate in gates(model):
        gate.unfreeze()
        gate.set_posterior(0.0, np.linspace(-3.0, 0.0, gate.units))
    return model


def gates(model):
    return [layer for layer in model.layers if isinstance(layer, keras_sbp.SBPLayer)]


def left(model):
    return [int(gate.alive.sum()) for gate in gates(model)]


def fit(model, epochs, *callbacks, start=0, **options):
    return model.fit(
        X, Y, batch_size=6, epochs=epochs, initial_epoch=start, verbose=0,
        callbacks=list(callbacks), **options,
    )  # fmt: skip


def macs(units):
    return 6 * units[0] + units[0] * units[1] + 2 * units[1]


def test_the_way_is_a_polynomial():
    callback = GradualPruning(HALF, begin=0.2, end=0.6, power=3.0)
    assert [callback.left(at) for at in (0.0, 0.2, 0.6, 1.0)] == [1.0, 1.0, 0.0, 0.0]
    assert callback.left(0.4) == pytest.approx(0.5**3)
    assert GradualPruning(HALF, begin=0.5, end=0.5).left(0.5) == 0.0


@pytest.mark.parametrize("epochs", [1, 2, 7])
def test_meets_the_budget_however_long(model, epochs):
    callback = GradualPruning(HALF)
    fit(model, epochs, callback)
    assert callback.met
    budget = 0.5 * macs([8, 6])
    assert macs(left(model)) <= budget < macs([units + 1 for units in left(model)])
    assert not gates(model)[0].alive[-1]  # the noisiest
    _, report = keras_sbp.prune(model)
    assert report.macs_after <= budget


def test_units_go_on_schedule(model):
    """Nothing before `begin`, ever less, all at `end`."""
    seen = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(macs(left(model))))
    fit(model, 10, watch, GradualPruning(HALF, begin=0.2, end=0.8))
    assert seen[0] == seen[1] == macs([8, 6])
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) > 3
    assert seen[-1] == seen[-2] <= 0.5 * macs([8, 6]) < seen[4]


def test_steps_that_are_run_together(model):
    if keras.backend.backend() == "torch":
        pytest.skip("Keras runs PyTorch's steps one by one")
    model.steps_per_execution, before = 4, model.steps_per_execution
    model.make_train_function(force=True)
    try:
        callback = GradualPruning(HALF)
        fit(model, 2, callback)
        assert callback.met
    finally:
        model.steps_per_execution = before
        model.make_train_function(force=True)


@pytest.mark.tensorflow
def test_an_unknown_number_of_steps(model):
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(6).filter(lambda x, y: True)
    seen = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(macs(left(model))))
    callback = GradualPruning(HALF, begin=0.0, end=1.0)
    model.fit(data, epochs=3, verbose=0, callbacks=[callback, watch])
    assert callback.met
    assert seen == sorted(seen, reverse=True)
    assert macs([8, 6]) > seen[0] > seen[-1]


def test_units_of_layers(model):
    fit(model, 2, GradualPruning({"first": 3, "second_gate": 0.5}))
    assert left(model) == [3, 3]


def test_a_training_that_goes_on(model):
    """From a state in the middle, along the same curve."""
    first = GradualPruning(HALF, begin=0.0, end=1.0)
    with pytest.raises(KeyboardInterrupt):
        fit(model, 4, first, keras.callbacks.LambdaCallback(on_epoch_begin=interrupt))
    half = left(model)
    assert macs([8, 6]) > macs(half) > 0.5 * macs([8, 6])
    again = GradualPruning(HALF, begin=0.0, end=1.0)
    fit(model, 4, again, start=2)
    assert again.met
    assert macs(left(model)) <= 0.5 * macs([8, 6])


def interrupt(epoch, logs):
    if epoch == 2:
        raise KeyboardInterrupt


@pytest.mark.remedy("Train on with fit(initial_epoch=...), or stop later")
def test_a_training_that_ends_early(model):
    callback = GradualPruning(HALF, begin=0.2, end=0.9)
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: setattr(model, "stop_training", True)
    )
    with pytest.warns(UserWarning, match="has not met its target"):
        fit(model, 3, callback, stop)
    assert not callback.met
    fit(model, 3, callback, start=1)
    assert callback.met


def test_the_rest_is_frozen_at_once(model):
    callback = GradualPruning(HALF, begin=0.2, end=0.9)
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: setattr(model, "stop_training", True)
    )
    fit(model, 3, callback, stop)
    callback.finish()
    assert macs(left(model)) <= 0.5 * macs([8, 6])
    before = left(model)
    callback.finish()
    assert left(model) == before


@pytest.mark.remedy("Pass EarlyStopping(restore_best_weights=False), or start_from_epoch=")
def test_weights_of_an_earlier_epoch(model):
    callback = GradualPruning(HALF)
    options = {"monitor": "worst", "mode": "max", "patience": 9}
    worse = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(worst=-float(epoch))
    )
    early = keras.callbacks.EarlyStopping(restore_best_weights=True, **options)
    with pytest.warns(UserWarning, match="weights of an earlier epoch were restored"):
        fit(model, 3, worse, early, callback)
    for weights in (
        {"restore_best_weights": False},
        {"restore_best_weights": True, "start_from_epoch": 2},
    ):
        fit(model, 3, worse, keras.callbacks.EarlyStopping(**weights, **options), callback)
        assert callback.met


@pytest.mark.remedy("Change the name in the target, or put a gate behind this layer")
def test_a_name_without_a_gate(model):
    with pytest.raises(ValueError, match="finds no gate for 'third'"):
        fit(model, 1, GradualPruning({"third": 3}))
    fit(model, 1, GradualPruning({"second": 3}))
    assert left(model) == [8, 3]


@pytest.mark.remedy("from the target")
def test_two_numbers_for_the_same_units(model):
    with pytest.raises(ValueError, match="by the name of 'first_gate'"):
        fit(model, 1, GradualPruning({"first": 3, "first_gate": 4}))
    fit(model, 1, GradualPruning({"first": 3}))
    assert left(model) == [3, 6]


@pytest.mark.remedy("Pass begin=0.2, end=0.6, for instance")
@pytest.mark.remedy("Pass Budget(macs=0.3), for instance, or {'conv_3': 0.5, 'dense': 40}")
def test_arguments(model):
    with pytest.raises(ValueError, match="from one part of the training to another"):
        GradualPruning(HALF, begin=0.6, end=0.2)
    with pytest.raises(TypeError, match="needs to know what is to remain"):
        GradualPruning(0.5)
    with pytest.raises(TypeError, match="target\\['first'\\]"):
        GradualPruning({"first": "3"})
    assert "begin=0.2, end=0.6" in repr(GradualPruning(HALF, begin=0.2, end=0.6))
    fit(model, 1, GradualPruning(keras_sbp.Budget(macs=0.6), begin=0.2, end=0.6))
    fit(model, 1, GradualPruning({"first": 0.5, "second": 3}))
    assert max(left(model)) <= 4


def test_a_budget_that_cannot_be_met(model):
    with pytest.raises(ValueError, match="cannot be met"):
        fit(model, 1, GradualPruning(keras_sbp.Budget(macs=0.01)))
    assert left(model) == [8, 6]
