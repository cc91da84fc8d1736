"""What SNRMonitor says of gates that lose no unit: the right knob, and a number that is enough."""

from __future__ import annotations

import re
import warnings

import keras
import numpy as np
import pytest

from keras_sbp.callbacks import SNRMonitor
from keras_sbp.callbacks.diagnosis import Diagnosis
from keras_sbp.callbacks.epoch_summary import summarise
from keras_sbp.layers import SBPLayer

X = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
Y = X[:, :1] - X[:, 1:2]  # four of the six features are noise
STEPS = 16
# Compiling takes XLA longer than a few steps of a small network take without it.
COMPILED = keras.backend.backend() == "jax"
ADAM_LIKE = [
    keras.optimizers.Adam,
    keras.optimizers.AdamW,
    keras.optimizers.Nadam,
    keras.optimizers.RMSprop,
    lambda rate: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(rate)),
]

pytestmark = pytest.mark.usefixtures("optimizers_built_first")


def gated(optimizer, cls=keras.Sequential, **arguments):
    """A gate on the features and a linear model, to which noise is worth nothing from the start."""
    keras.utils.set_random_seed(0)
    gate = SBPLayer(name="gate", **arguments)
    model = cls([keras.Input((6,)), gate, keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile(optimizer, "mse", jit_compile=COMPILED)
    return model


def fit(model, epochs, y=Y, callbacks=()):
    """Trains; returns what was said, and how many features stay."""
    callbacks = [SNRMonitor(), *callbacks]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        model.fit(X, y, batch_size=4, epochs=epochs, verbose=0, callbacks=callbacks)
    said = [str(w.message) for w in caught if w.category is UserWarning]
    return said, int(model.get_layer("gate").keep().sum())


def foretold(optimizer, epochs, epoch=0, **arguments):
    """What is said before the first step."""
    gate = gated(optimizer, **arguments).get_layer("gate")
    return Diagnosis(gated(optimizer), epochs, STEPS).before_epoch(epoch, summarise([gate]))


def number(pattern: str, message: str) -> float:
    return float(re.search(pattern.replace("*", r"([\d.e+-]*\d)"), message)[1])


def adam(rate=0.01):
    return keras.optimizers.Adam(rate)


def test_it_is_said_before_the_first_step_that_a_run_is_too_short():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            raise InterruptedError

    model = gated(adam(), learning_rate_multiplier=1)
    with (
        pytest.warns(UserWarning, match="No gate can lose a unit in this run") as told,
        pytest.raises(InterruptedError),
    ):
        model.fit(X, Y, batch_size=4, epochs=10, callbacks=[SNRMonitor(), Stop()], verbose=0)
    (message,) = [str(each.message) for each in told if each.category is UserWarning]
    for part in ("about 5", "Adam moves it by 1.6", "160 steps", "rate of 0.01", "multiplier=1)"):
        assert part in message


@pytest.mark.parametrize(
    ("epochs", "pattern"),
    [
        (20, r"fit\(epochs=*\)"),
        (10, r"SBPLayer\(learning_rate_multiplier=*\)"),
        (25, r"SBPLayer\(log_sigma_initializer=*\)"),
    ],
)
def test_what_is_said_to_be_enough_is_enough(epochs, pattern):
    arguments = {"learning_rate_multiplier": 1}
    (message,) = foretold(adam(), epochs, **arguments)
    value = number(pattern, message)
    if "epochs" in pattern:
        epochs = int(value)
    else:
        arguments |= {pattern.partition("(")[2].partition("=")[0]: value}
    said, kept = fit(gated(adam(), **arguments), epochs)
    assert 0 < kept < 6
    assert not any("can lose a unit" in each for each in said)


def test_a_run_that_is_long_enough_is_not_commented():
    assert foretold(adam(), 4) == []
    assert foretold(adam(), 14, epoch=10) == []
    assert len(foretold(adam(), 12, epoch=10)) == 1  # two epochs are left


def test_it_is_said_once_and_a_warm_up_is_waited_for():
    model = gated(adam())
    gate = model.get_layer("gate")
    diagnosis = Diagnosis(model, 8, STEPS)
    gate.kl_factor.assign(0.0)
    assert diagnosis.before_epoch(0, summarise([gate])) == []
    gate.kl_factor.assign(0.5)
    assert "32 steps" in diagnosis.before_epoch(6, summarise([gate]))[0]
    assert diagnosis.before_epoch(7, summarise([gate])) == []


def test_schedules_of_the_learning_rate_count():
    schedules = keras.optimizers.schedules
    assert foretold(adam(schedules.PiecewiseConstantDecay([80], [1e-6, 0.05])), 10) == []
    falling = schedules.CosineDecay(0.05, 16)
    (message,) = foretold(adam(falling), 10)
    assert "fit(epochs=" not in message  # the rate is 0 by then
    multiplier = number(r"SBPLayer\(learning_rate_multiplier=*\)", message)
    assert foretold(adam(falling), 10, learning_rate_multiplier=multiplier) == []


def test_steps_whose_gradients_are_accumulated_count_together():
    optimizer = keras.optimizers.Adam(0.001, gradient_accumulation_steps=2)
    assert "80 steps" in foretold(optimizer, 10)[0]


def test_gates_that_are_not_to_learn_are_not_spoken_of():
    assert foretold(adam(0.001), 4, trainable=False) == []
    assert foretold(adam(0.001), 4, kl_weight=0.0) == []


def test_plain_sgd_is_advised_to_be_adam_which_is_enough():
    (message,), _ = fit(gated(keras.optimizers.SGD(1e-3)), 10)
    assert "This model trains with SGD" in message
    rate = number(r"Adam\(*\)", message)
    multiplier = number(r"SBPLayer\(learning_rate_multiplier=*\)", message)
    assert 0 < fit(gated(adam(rate), learning_rate_multiplier=multiplier), 10)[1] < 6


@pytest.mark.parametrize("make", ADAM_LIKE)
def test_adam_is_not_advised_to_those_who_have_it(make):
    model = gated(make(0.01))
    gate = model.get_layer("gate")
    gate.set_steps_per_epoch(STEPS)
    gate(X, training=True)
    diagnosis = Diagnosis(model, 6, STEPS)
    diagnosis.begin(summarise([gate]))
    said = foretold(make(0.001), 3)
    for _ in range(6):
        said += diagnosis.after_epoch(summarise([gate]), 10.0, STEPS)
    said += diagnosis.at_end(summarise([gate]))
    assert ["can lose a unit" in said[0], "hardly move" in said[1]] == [True, True]
    assert not any("optimizers.Adam" in each for each in said)


UNLIKE = X @ np.array([[1.0], [1.0], [1.0], [0.3], [0.3], [0.3]], "float32")


@pytest.mark.remedy("Raise SBPLayer(kl_weight=...), for example to")
def test_a_kl_at_rest_is_told_to_weigh_more_which_is_enough():
    said, kept = fit(gated(adam(0.02), kl_weight=0.01), 20, y=UNLIKE)
    assert kept == 6
    assert "has come to rest" in said[-1]
    weight = number(r"for example to *\.", said[-1])
    assert fit(gated(adam(0.02), kl_weight=weight), 20, y=UNLIKE)[1] < 6


def test_noise_that_still_grows_is_told_to_go_on_which_is_enough():
    (message,), kept = fit(gated(adam(), learning_rate_multiplier=4), 8)
    assert kept == 6
    assert "still growing" in message
    epochs = int(number(r"fit\(epochs=*\)", message))
    assert 0 < fit(gated(adam(), learning_rate_multiplier=4), epochs)[1] < 6


class OwnStep(keras.Sequential):
    """Takes training steps of its own, with the losses of layers or without."""

    adds_losses = True
    logs_losses = True

    def train_step(self, *arguments):
        return getattr(self, f"_{keras.backend.backend()}_step")(*arguments)

    def _answer(self, error, losses):
        total = error + sum(losses) if self.adds_losses else error
        return total, (total if self.logs_losses else error)

    def _tensorflow_step(self, data):
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            error = keras.ops.mean((self(x, training=True) - y) ** 2)
            loss, logged = self._answer(error, self.losses)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": logged}

    def _torch_step(self, data):
        x, y = data
        self.zero_grad()
        error = keras.ops.mean((self(x, training=True) - y) ** 2)
        loss, logged = self._answer(error, self.losses)
        loss.backward()
        variables = list(self.trainable_variables)
        self.optimizer.apply([v.value.grad for v in variables], variables)
        return {"loss": logged.detach()}

    def _jax_step(self, state, data):
        import jax

        trainable, other, optimizer, metrics = state
        x, y = data

        def loss_of(trainable):
            y_pred, updated, losses = self.stateless_call(
                trainable, other, x, training=True, return_losses=True
            )
            loss, logged = self._answer(keras.ops.mean((y_pred - y) ** 2), losses)
            return loss, (logged, updated)

        (_, (logged, other)), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable)
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
        return {"loss": logged}, (trainable, other, optimizer, metrics)


def own_step(**switches):
    model = gated(adam(), OwnStep, log_sigma_initializer=-2.0)
    for name, value in switches.items():
        setattr(model, name, value)
    return model


def test_a_train_step_that_leaves_the_kl_out_is_named():
    said, kept = fit(own_step(adds_losses=False), 8)
    assert kept == 6
    (message,) = said
    for part in ("OwnStep has a train_step", "sum(self.losses)", "return_losses=True", "sbp_kl"):
        assert part in message


@pytest.mark.parametrize("logs_losses", [True, False])
def test_a_train_step_that_adds_the_losses_is_not(logs_losses):
    said, kept = fit(own_step(logs_losses=logs_losses), 8)
    assert 0 < kept < 6
    assert not any("OwnStep" in each for each in said)


class OwnLoss(keras.Sequential):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean((y - y_pred) ** 2)


class Mended(OwnLoss):
    def compute_loss(self, *arguments, **options):
        return super().compute_loss(*arguments, **options) + sum(self.losses)


@pytest.mark.parametrize(("cls", "is_named"), [(OwnLoss, True), (Mended, False)])
def test_a_compute_loss_that_leaves_the_kl_out_is_named(cls, is_named):
    said, kept = fit(gated(adam(), cls, log_sigma_initializer=-2.0), 8)
    assert any(cls.__name__ in each for each in said) is is_named
    assert (kept == 6) is is_named


class Inherited(OwnStep):
    """As the message says: Keras's own loss, which has the KL."""

    def _tensorflow_step(self, data):
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


@pytest.mark.tensorflow
@pytest.mark.remedy("Take the loss from self.compute_loss(x, y, y_pred), or add sum(self.losses)")
def test_a_train_step_may_take_the_loss_of_keras():
    said, kept = fit(gated(adam(), Inherited, log_sigma_initializer=-2.0), 8)
    assert 0 < kept < 6
    assert not any("Inherited" in each for each in said)


@pytest.mark.filterwarnings("ignore:(No gate can lose|The KL outweighs)")
@pytest.mark.remedy("Pass num_samples, or fit(steps_per_epoch=...)")
def test_a_kl_that_never_counted_gets_its_weight_as_said() -> None:
    def batches():
        while True:
            yield np.ones((4, 3), "float32"), np.ones((4, 1), "float32")

    def fit(**gate: float) -> float:
        parts = [keras.layers.Dense(4), SBPLayer(**gate), keras.layers.Dense(1)]
        model = keras.Sequential([keras.Input((3,)), *parts])
        model.compile("adam", "mse")
        monitor = SNRMonitor(verbose=0)
        history = model.fit(batches(), steps_per_epoch=2, verbose=0, callbacks=[monitor]).history
        return history["sbp_kl"][0]

    with pytest.warns(UserWarning, match="the KL had weight 0 throughout.*Pass num_samples"):
        assert fit(kl_weight=0.0, num_samples=8) == 0.0
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*the KL had weight 0 throughout")
        assert fit() > 0.0
        assert fit(num_samples=8) > 0.0
