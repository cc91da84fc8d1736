"""After the error of training without a number of samples, its remedies work."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_sbp.callbacks import KLWarmup, SNRMonitor
from keras_sbp.layers import SBPLayer, find_gates

X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
Y = X[:, :1]

pytestmark = pytest.mark.filterwarnings(
    "ignore:(Nothing will be pruned|No gate can lose|The KL outweighs)"
)


def sequential():
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3),
            keras.layers.BatchNormalization(),
            SBPLayer(),
            keras.layers.Dense(1),
        ]
    )


class Subclassed(keras.Model):
    """Built only by its first training step, where Keras leaves that to the step."""

    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(3)
        self.gate = SBPLayer()
        self.answer = keras.layers.Dense(1)

    def call(self, inputs, training=False):
        return self.answer(self.gate(self.hidden(inputs), training=training))


def refuse(train, *arguments, **options):
    with pytest.raises(RuntimeError, match=r"callbacks=\[keras_sbp.SNRMonitor\(\)\]"):
        train(*arguments, **options)


@pytest.mark.remedy("or train with model.fit(..., callbacks=[keras_sbp.SNRMonitor()])")
@pytest.mark.parametrize("make", [sequential, Subclassed])
@pytest.mark.parametrize("method", ["fit", "train_on_batch"])
def test_the_next_fit_with_the_monitor_trains(make, method):
    model = make()
    model.compile("adam", "mse", metrics=["mae"])
    before = model.layers[0].get_weights()
    refuse(getattr(model, method), X, Y)
    if before:
        np.testing.assert_equal(model.layers[0].get_weights(), before)
    history = model.fit(X, Y, verbose=0, callbacks=[SNRMonitor()]).history
    assert np.isfinite(history["loss"][0]) and history["sbp_kl"][0] > 0


@pytest.mark.parametrize("options", [{"run_eagerly": True}, {"optimizer": "again"}])
def test_however_the_model_is_compiled(options):
    model = sequential()
    model.compile("adam", "mse")
    if "optimizer" in options:
        # The optimizer has its variables, the metrics have not.
        model.optimizer.build(model.trainable_variables)
        options = {"optimizer": model.optimizer, "metrics": ["mae"]}
    model.compile(**{"optimizer": "adam", "loss": "mse"} | options)
    refuse(model.fit, X, Y, verbose=0)
    history = model.fit(X, Y, verbose=0, callbacks=[SNRMonitor()]).history
    assert history["sbp_kl"][0] > 0


class CallsInTraining(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.model(X, training=True)


def test_an_error_before_the_first_step_is_the_gates_own():
    model = sequential()
    model.compile("adam", "mse")
    refuse(model.fit, X, Y, verbose=0, callbacks=[CallsInTraining()])
    assert model.fit(X, Y, verbose=0, callbacks=[SNRMonitor()]).history["sbp_kl"][0] > 0


def test_a_warm_up_without_the_monitor_is_refused_and_trains_with_it():
    model = sequential()
    model.compile("adam", "mse")
    refuse(model.fit, X, Y, verbose=0, callbacks=[KLWarmup(1)])
    history = model.fit(X, Y, verbose=0, callbacks=[KLWarmup(1), SNRMonitor()]).history
    assert history["sbp_kl"][0] > 0


def test_an_inner_model_and_the_outer_one_train():
    inner = sequential()
    model = keras.Sequential([keras.Input((4,)), inner, SBPLayer()])
    for each in (inner, model):
        each.compile("adam", "mse")
        refuse(each.fit, X, Y, verbose=0)
    for each in (model, inner, model):
        assert each.fit(X, Y, verbose=0, callbacks=[SNRMonitor()]).history["sbp_kl"][0] > 0
    refuse(inner.fit, X, Y, verbose=0)


@pytest.mark.parametrize("remedy", ["steps", "num_samples"])
def test_the_number_given_to_the_gate_trains_without_a_monitor(remedy):
    model = sequential()
    model.compile("adam", "mse")
    refuse(model.fit, X, Y, verbose=0)
    (gate,) = find_gates(model)
    if remedy == "steps":
        gate.set_steps_per_epoch(1)
    else:
        gate.num_samples = 12
    model.fit(X, Y, verbose=0)
    np.testing.assert_allclose(gate.kl_loss(), gate.kl() / 12, rtol=1e-6)


@pytest.mark.tensorflow
def test_a_step_that_has_gone_through_is_not_traced_again():
    traced = []

    class Traced(keras.layers.Layer):
        def call(self, inputs, training=False):
            traced.append(training)
            return inputs

    model = keras.Sequential([keras.Input((4,)), Traced(), SBPLayer()])
    model.compile("adam", "mse")
    model.fit(X, X, verbose=0, callbacks=[SNRMonitor()])
    traced.clear()
    for _ in range(2):
        model.fit(X, X, verbose=0, callbacks=[SNRMonitor()])
    refuse(model.train_on_batch, X, X)
    assert not traced
