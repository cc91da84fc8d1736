"""KLWarmup: the schedule, and that the loss follows it."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_sbp.callbacks import KLWarmup, SNRMonitor
from keras_sbp.layers import SBPLayer

X = np.ones((6, 4), "float32")

pytestmark = pytest.mark.filterwarnings(
    "ignore:(Nothing will be pruned|No gate can lose|The KL outweighs)"
)


@pytest.mark.parametrize(
    ("epochs", "start", "factors"),
    [
        (3, 0, [1 / 4, 2 / 4, 3 / 4, 1, 1, 1]),
        (1, 0, [1 / 2, 1, 1]),
        (2, 2, [0, 0, 1 / 3, 2 / 3, 1]),
        (0, 0, [1, 1]),
        (0, 2, [0, 0, 1, 1]),
    ],
)
def test_the_schedule(epochs, start, factors):
    warmup = KLWarmup(epochs, start)
    np.testing.assert_allclose([warmup.factor(epoch) for epoch in range(len(factors))], factors)


def kl_model(**arguments):
    gate = SBPLayer(**arguments)
    model = keras.Sequential([keras.Input((4,)), gate])
    model.compile(keras.optimizers.SGD(0.0), lambda y, p: 0.0 * keras.ops.mean(p, axis=-1))
    return model, gate


def test_the_loss_follows_also_when_training_is_resumed():
    model, gate = kl_model()
    fractions = []
    for first, last in ((0, 2), (2, 6)):
        callbacks = [KLWarmup(3, start_epoch=1), SNRMonitor()]
        history = model.fit(
            X, X, initial_epoch=first, epochs=last, verbose=0, callbacks=callbacks
        ).history
        np.testing.assert_allclose(history["sbp_kl"], history["loss"], rtol=1e-5)
        fractions += [loss / (gate.kl() / 6) for loss in history["loss"]]
        assert float(gate.kl_factor.value) == 1.0
    np.testing.assert_allclose(fractions, [0, 1 / 4, 2 / 4, 3 / 4, 1, 1], rtol=1e-5)


class Interrupted(keras.callbacks.Callback):
    """Interrupts training at one of its hooks, as the user or an error does."""

    def __init__(self, hook):
        super().__init__()

        def interrupt(*arguments, **named):
            raise KeyboardInterrupt

        setattr(self, hook, interrupt)


@pytest.mark.parametrize("hook", ["on_train_batch_begin", "on_train_batch_end", "on_epoch_end"])
@pytest.mark.parametrize("monitored", [False, True])
def test_the_fit_after_an_interrupted_one_counts_the_whole_kl(hook, monitored):
    model, gate = kl_model(num_samples=None if monitored else 6)

    def fit(*callbacks, **options):
        callbacks = [*callbacks, *([SNRMonitor()] if monitored else [])]
        return model.fit(X, X, verbose=0, callbacks=callbacks, **options).history["loss"]

    model.fit(X, X, verbose=0, callbacks=[SNRMonitor()])
    with pytest.raises(KeyboardInterrupt):
        fit(KLWarmup(3), Interrupted(hook))
    assert float(gate.kl_factor.value) == 0.25
    assert fit(epochs=2) == pytest.approx([gate.kl() / 6] * 2, rel=1e-5)
    assert float(gate.kl_factor.value) == 1.0
    with pytest.raises(KeyboardInterrupt):
        fit(KLWarmup(3), Interrupted(hook))
    again = fit(KLWarmup(3), initial_epoch=1, epochs=3)
    assert again == pytest.approx([gate.kl() / 6 * part for part in (0.5, 0.75)], rel=1e-5)


@pytest.mark.parametrize("eager", [False, True])
def test_compiling_after_an_interrupted_fit_counts_the_whole_kl(eager):
    model, gate = kl_model(num_samples=6)

    def interrupt() -> None:
        model.compile(keras.optimizers.SGD(0.0), run_eagerly=eager)
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, X, verbose=0, callbacks=[KLWarmup(3), Interrupted("on_train_batch_end")])
        assert float(gate.kl_factor.value) == 0.25
        model.compile(keras.optimizers.SGD(0.0), run_eagerly=eager)

    interrupt()
    loss = model.fit(X, X, epochs=2, verbose=0).history["loss"]
    assert loss == pytest.approx([gate.kl() / 6] * 2, rel=1e-5)
    gate.kl_factor.assign(0.5)  # what the user writes counts
    assert model.fit(X, X, verbose=0).history["loss"] == pytest.approx([gate.kl() / 12], rel=1e-5)
    again = model.fit(X, X, epochs=2, verbose=0, callbacks=[KLWarmup(3)]).history["loss"]
    assert again == pytest.approx([gate.kl() / 6 * part for part in (0.25, 0.5)], rel=1e-5)
    interrupt()
    history = model.fit(X, X, verbose=0, callbacks=[SNRMonitor()]).history
    assert history["loss"] == pytest.approx(history["sbp_kl"]) == [pytest.approx(gate.kl() / 6)]
    assert float(gate.kl_factor.value) == 1.0


def test_a_first_fit_that_no_step_went_through_counts_for_nothing():
    model, gate = kl_model(num_samples=6)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, X, verbose=0, callbacks=[KLWarmup(3), Interrupted("on_train_batch_begin")])
    assert model.fit(X, X, verbose=0).history["loss"] == pytest.approx([gate.kl() / 6], rel=1e-5)


def test_a_model_without_gates_is_refused():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="KLWarmup found no gate"):
        model.fit(X, X, verbose=0, callbacks=[KLWarmup(3)])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [((-1,), ValueError), ((2, -1), ValueError), ((1.5,), TypeError), ((1, True), TypeError)],
)
def test_refuses_bad_arguments(arguments, error):
    with pytest.raises(error, match="KLWarmup expected"):
        KLWarmup(*arguments)


def test_repr_is_what_constructs_it():
    assert repr(KLWarmup(3, start_epoch=1)) == "KLWarmup(epochs=3, start_epoch=1)"
