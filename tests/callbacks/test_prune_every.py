"""SNRMonitor(prune_every=n): pruning while the network trains."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest

import keras_sbp
from keras_sbp.callbacks import SNRMonitor
from keras_sbp.layers import SBPLayer

X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
Y = X[:, :1]

pytestmark = pytest.mark.usefixtures("optimizers_built_first")


@pytest.fixture(autouse=True)
def quiet(recwarn):
    """Runs this short say rightly that nothing more will be pruned."""


@functools.cache
def compiled_model():
    """One model for all tests: compiling takes most of the time."""
    slow = {"learning_rate_multiplier": 0.01}
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, activation="tanh"),
            SBPLayer(name="first", **slow),
            keras.layers.Dense(5, activation="tanh"),
            SBPLayer(name="second", **slow),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(), "mse")
    return model, model.get_weights()


def gated(learning_rate=1e-3):
    """Returns the model and its gates as new, one and two units of which are noisy."""
    model, weights = compiled_model()
    model.set_weights(weights)
    model.optimizer.learning_rate = learning_rate
    first, second = model.get_layer("first"), model.get_layer("second")
    first.set_posterior(0.0, [-5.0, 4.0, -5.0])
    second.set_posterior(-1.0, [4.0, -5.0, 4.0, -5.0, -5.0])
    return model, first, second


def fit(model, epochs, monitor, start=0, others=()):
    return model.fit(
        X, Y, batch_size=6, epochs=epochs, initial_epoch=start, verbose=0,
        callbacks=[monitor, *others],
    )  # fmt: skip


class Note(keras.callbacks.Callback):
    def __init__(self, gate):
        super().__init__()
        self.gate, self.alive = gate, []

    def on_epoch_end(self, epoch, logs=None):
        self.alive.append(int(self.gate.alive.sum()))


class Widen(keras.callbacks.Callback):
    """Makes one more unit of a gate noisy before each epoch."""

    def __init__(self, gate):
        super().__init__()
        self.gate = gate

    def on_epoch_begin(self, epoch, logs=None):
        self.gate.set_posterior(-1.0, np.where(np.arange(self.gate.units) < epoch, 4.0, -5.0))


def test_nothing_is_frozen_unless_asked():
    model, first, second = gated()
    fit(model, 2, SNRMonitor())
    assert first.alive.all() and second.alive.all()


@pytest.mark.parametrize(
    ("every", "expected"), [(1, [5, 4, 3, 2]), (2, [5, 4, 4, 2]), (5, [5] * 4)]
)
def test_freezes_after_every_nth_epoch(every, expected):
    model, _, second = gated()
    note = Note(second)
    fit(model, 4, SNRMonitor(prune_every=every), others=[Widen(second), note])
    assert note.alive == expected


def test_training_goes_on_with_fewer_units():
    model, first, second = gated(learning_rate=0.05)
    fit(model, 1, SNRMonitor(prune_every=1))
    np.testing.assert_array_equal(first.alive, [True, False, True])
    np.testing.assert_array_equal(second.alive, [False, True, False, True, True])
    # No posterior brings a frozen unit back, and the others learn.
    first.set_posterior(0.0, -5.0)
    second.set_posterior(0.0, -5.0)
    monitor = SNRMonitor(prune_every=1)
    before = model.evaluate(X, Y, verbose=0)
    history = fit(model, 20, monitor).history
    assert history["sbp_kept"][-1] == 5.0
    assert history["sbp_kept_first"][-1] == 2.0
    assert history["sbp_sparsity"][-1] == 3 / 8
    assert model.evaluate(X, Y, verbose=0) < 0.5 * before
    snr = np.concatenate([first.snr()[first.alive], second.snr()[second.alive]])
    assert history["sbp_snr_p5"][-1] == snr.min()
    assert history["sbp_snr_p95"][-1] == snr.max()
    np.testing.assert_allclose(history["sbp_kl"][-1], first.kl_loss() + second.kl_loss())


def test_evaluate_scores_the_pruned_network():
    model, first, second = gated()
    fit(model, 2, SNRMonitor(prune_every=1))
    first.set_posterior(0.0, -5.0)
    second.set_posterior(0.0, -5.0)
    small, _ = keras_sbp.prune(model)
    assert [layer.units for layer in small.layers if hasattr(layer, "units")] == [2, 3, 1]
    small.compile(loss="mse")
    np.testing.assert_allclose(
        model.evaluate(X, Y, verbose=0), small.evaluate(X, Y, verbose=0), rtol=1e-5
    )
    assert np.ptp(small.predict(X, verbose=0)) > 1e-3


@pytest.mark.parametrize("file", ["model.keras", "model.weights.h5"])
def test_a_checkpoint_resumes_with_the_frozen_units(tmp_path, file):
    model, *_ = gated()
    weights_only = file.endswith(".h5")
    save = keras.callbacks.ModelCheckpoint(tmp_path / file, save_weights_only=weights_only)
    fit(model, 1, SNRMonitor(prune_every=1), others=[save])
    if weights_only:
        again, *_ = gated()
        assert again.get_layer("first").alive.all()
        again.load_weights(tmp_path / file)
    else:
        again = keras.models.load_model(tmp_path / file)
    first, second = again.get_layer("first"), again.get_layer("second")
    np.testing.assert_array_equal(first.alive, [True, False, True])
    first.set_posterior(0.0, -5.0)
    second.set_posterior(0.0, -5.0)
    history = fit(again, 3, SNRMonitor(prune_every=1), start=1).history
    assert history["sbp_kept"] == [5.0, 5.0]


def test_best_weights_come_back_with_their_units():
    model, _, second = gated()
    stop = keras.callbacks.EarlyStopping(
        "sbp_kept", mode="max", patience=2, restore_best_weights=True
    )
    fit(model, 5, SNRMonitor(prune_every=1), others=[Widen(second), stop])
    assert second.alive.sum() == 5


def test_the_last_unit_is_not_frozen_and_the_warning_comes():
    model, first, second = gated()
    second.set_posterior(-1.0, 4.0)
    with pytest.warns(UserWarning, match="about to be pruned at 'second'"):
        fit(model, 1, SNRMonitor(prune_every=1))
    np.testing.assert_array_equal(first.alive, [True, False, True])
    assert second.alive.all()


def branch(log_sigma):
    """A residual branch with a gate of one unit, and a gate behind it."""
    inputs = keras.Input((4,))
    gate, last = SBPLayer(axis=None, name="branch"), SBPLayer(name="last")
    x = keras.layers.add([inputs, gate(keras.layers.Dense(4)(inputs))])
    model = keras.Model(inputs, keras.layers.Dense(1)(last(x)))
    model.compile(keras.optimizers.Adam(1e-4), "mse")
    gate.set_posterior(-1.0, 4.0)
    last.set_posterior(-1.0, log_sigma)
    return model, gate, last


def test_a_branch_may_go_unless_it_is_all_there_is():
    model, gate, last = branch(-5.0)
    fit(model, 1, SNRMonitor(prune_every=1))
    assert not gate.alive.any() and last.alive.all()
    model, gate, last = branch(4.0)
    with pytest.warns(UserWarning, match="about to be pruned"):
        fit(model, 1, SNRMonitor(prune_every=1))
    assert gate.alive.all() and last.alive.all()


def test_everything_frozen_still_has_a_summary():
    model, first, second = gated()
    for gate in (first, second):
        gate.freeze(np.zeros(gate.units, bool))
    with pytest.warns(UserWarning, match="about to be pruned"):
        history = fit(model, 1, SNRMonitor()).history
    assert history["sbp_kept"] == [0.0]
    assert np.isnan(history["sbp_snr_p50"][0])
    assert history["sbp_kl"] == [0.0]


def test_inserting_gates_keeps_what_is_frozen():
    model, *_ = gated()
    fit(model, 1, SNRMonitor(prune_every=1))
    head = [keras.layers.Dense(6, activation="relu"), keras.layers.Dense(1)]
    deeper = keras.Sequential([keras.Input((4,)), *model.layers[:-1], *head])
    copy = keras_sbp.insert_sbp(deeper)
    np.testing.assert_array_equal(copy.get_layer("first").alive, [True, False, True])
    assert copy.get_layer("first") is not model.get_layer("first")


@pytest.mark.parametrize(
    ("prune_every", "error"),
    [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)],
)
def test_refuses_bad_arguments(prune_every, error):
    with pytest.raises(error, match="SNRMonitor expected `prune_every`"):
        SNRMonitor(prune_every=prune_every)
