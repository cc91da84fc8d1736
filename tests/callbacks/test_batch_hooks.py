"""Gates are read and written between the batches, also where JAX's trainer holds the values."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_sbp.callbacks import SNRMonitor
from keras_sbp.layers import SBPLayer

X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")

JAX = keras.backend.backend() == "jax"

pytestmark = pytest.mark.filterwarnings(
    "ignore:(Nothing will be pruned|No gate can lose|The KL outweighs)"
)

READS = {
    "keep": lambda gate: gate.keep(),
    "posterior": lambda gate: gate.posterior,
    "snr": lambda gate: gate.snr(),
    "alive": lambda gate: gate.alive,
    "kl": lambda gate: gate.kl(),
    "kl_loss": lambda gate: gate.kl_loss(),
    "check_posterior": lambda gate: gate.check_posterior(),
}
WRITES = {
    "freeze": lambda gate: gate.freeze(np.array([True, False, True, True])),
    "unfreeze": lambda gate: gate.unfreeze(),
    "set_posterior": lambda gate: gate.set_posterior(-1.0, -3.0),
    "set_steps_per_epoch": lambda gate: gate.set_steps_per_epoch(2),
}
HOOKS = ("on_train_batch_begin", "on_train_batch_end", "on_test_batch_end")


def trained(hook, act, sync):
    """Returns the gate of a model in whose training `act` came at a hook, and what it raised."""
    gate = SBPLayer()
    model = keras.Sequential([keras.Input((4,)), gate])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    raised = []

    def at_hook(batch, logs=None):
        if batch == 1:
            if sync and JAX:
                model.jax_state_sync()
            try:
                act(gate)
            except RuntimeError as error:
                raised.append(str(error))

    callback = keras.callbacks.Callback()
    setattr(callback, hook, at_hook)
    arguments = {"batch_size": 4, "verbose": 0, "validation_data": (X, X)}
    model.fit(X, X, callbacks=[SNRMonitor(), callback], **arguments)
    return gate, raised


def all_of_them(gate):
    for act in (READS | WRITES).values():
        act(gate)
    gate.freeze(np.array([True, False, True, True]))


@pytest.mark.parametrize("hook", HOOKS)
def test_gates_are_read_and_written_at_any_hook_after_a_sync(hook):
    gate, raised = trained(hook, all_of_them, sync=True)
    assert not raised
    np.testing.assert_allclose(gate.posterior.mu, -1.0, rtol=1e-6)
    np.testing.assert_array_equal(gate.alive, [True, False, True, True])


def test_without_a_sync_each_of_them_works_or_says_what_to_do():
    told = []

    def each(gate):
        for act in (READS | WRITES).values():
            try:
                act(gate)
            except RuntimeError as error:
                told.append(str(error))

    trained("on_train_batch_end", each, sync=False)
    assert len(told) == (len(READS | WRITES) if JAX else 0)
    assert all("call self.model.jax_state_sync() before" in message for message in told)


class Fails(keras.layers.Layer):
    def call(self, inputs, training=False):
        if training:
            raise ValueError("a fault of the user's own")
        return inputs


def test_a_model_that_a_failed_step_has_emptied_says_so_and_is_loaded_again(tmp_path):
    gate = SBPLayer()
    model = keras.Sequential([keras.Input((4,)), gate, Fails()])
    model.compile("adam", "mse")
    model.save_weights(tmp_path / "model.weights.h5")
    for _ in range(2):
        with pytest.raises((ValueError, RuntimeError)) as error:
            model.fit(X, X, verbose=0, callbacks=[SNRMonitor()])
    if JAX:
        assert "build or load the model again" in str(error.value)
    again = keras.Sequential([keras.Input((4,)), SBPLayer(name=gate.name)])
    again.load_weights(tmp_path / "model.weights.h5", skip_mismatch=True)
    again.compile("adam", "mse")
    assert again.fit(X, X, verbose=0, callbacks=[SNRMonitor()]).history["sbp_kl"][0] > 0
