"""A training that was interrupted and goes on is the same training, noise included."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from keras_sbp.layers import SBPLayer

INPUTS = np.linspace(-1.0, 1.0, 16, dtype="float32").reshape(8, 2)
EPOCHS = 3


def compiled() -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(3, activation="tanh"),
            SBPLayer(num_samples=8, log_sigma_initializer=-1.0, seed=7, name="gate"),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    return model


def fit(model: keras.Model, epochs: int = EPOCHS, **options: object) -> keras.Model:
    model.fit(INPUTS, INPUTS[:, :1], 4, epochs, verbose=0, shuffle=False, **options)
    return model


class KilledError(RuntimeError):
    """What happens to long runs."""


class Kill(keras.callbacks.Callback):
    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if epoch == 1:
            raise KilledError


def resumed_from_a_file(folder: Path) -> keras.Model:
    fit(compiled(), epochs=1).save(folder / "model.keras")
    return fit(keras.models.load_model(folder / "model.keras"), initial_epoch=1)


def resumed_from_a_backup(folder: Path) -> keras.Model:
    backup = keras.callbacks.BackupAndRestore(folder / "backup")
    with pytest.raises(KilledError):
        fit(compiled(), callbacks=[Kill(), backup])
    return fit(compiled(), callbacks=[backup])


@pytest.mark.parametrize("resume", [resumed_from_a_file, resumed_from_a_backup])
def test_resumed_training_is_the_same_bit_for_bit(resume, tmp_path: Path) -> None:
    expected = fit(compiled())
    resumed = resume(tmp_path)
    for ours, theirs in zip(resumed.variables, expected.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)


@pytest.mark.parametrize("signed", [False, True])
def test_seed_state_comes_from_files_of_any_backend(signed: bool) -> None:
    """PyTorch holds it in signed integers, the others in unsigned ones."""
    gate, other = SBPLayer(seed=1), SBPLayer(seed=2)
    for each in (gate, other):
        each.build((None, 4))
    store: dict = {}
    gate.save_own_variables(store)
    store["seed_state"] = np.array([2**32 - 3, 5], "uint32")
    if signed:
        store["seed_state"] = store["seed_state"].astype("int32")
    other.load_own_variables(store)
    other.save_own_variables(store)
    assert store["seed_state"].tolist() == [2**32 - 3, 5]


def test_seed_state_of_another_shape_is_refused_by_name() -> None:
    gate = SBPLayer(name="gate_7")
    gate.build((None, 4))
    store: dict = {}
    gate.save_own_variables(store)
    with pytest.raises(ValueError, match=r"'gate_7'.*`seed_state` of shape \(2,\)"):
        gate.load_own_variables({**store, "seed_state": np.zeros(3)})
