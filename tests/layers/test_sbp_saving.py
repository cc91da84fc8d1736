"""SBPLayer on disk."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_sbp.layers import SBPLayer
from keras_sbp.rules import SNRThreshold

GOLDEN = Path(__file__).parent / "golden"
INPUTS = np.linspace(-1.0, 1.0, 8, dtype="float32").reshape(4, 2)


def make_model(units=3, **arguments):
    return keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(units, activation="tanh"),
            SBPLayer(num_samples=100, rule=SNRThreshold(0.9), name="gate", **arguments),
            keras.layers.Dense(1),
        ]
    )


@functools.cache
def trained_model():
    """One model for all tests, which therefore must not change it."""
    keras.utils.set_random_seed(0)
    model = make_model()
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    model.fit(INPUTS, INPUTS[:, :1], epochs=3, verbose=0)
    gate = model.get_layer("gate")
    gate.set_posterior(gate.posterior.mu, [-1.0, -4.97, 2.0])
    gate.freeze(np.array([False, True, True]))
    assert gate.keep().tolist() == [False, True, False]
    return model


def run(model):
    return keras.ops.convert_to_numpy(model(INPUTS))


def raw(model):
    gate = model.get_layer("gate")
    weights = [keras.ops.convert_to_numpy(w.value) for w in (gate.mu, gate.log_sigma)]
    return np.stack([*weights, gate.alive])


def assert_same(loaded, model):
    np.testing.assert_array_equal(raw(loaded), raw(model))
    assert np.ptp(run(model)) > 1e-3
    np.testing.assert_array_equal(run(loaded), run(model))


def test_the_keras_file_is_exact(tmp_path):
    model = trained_model()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(loaded, model)
    gate = loaded.get_layer("gate")
    assert gate.get_config() == model.get_layer("gate").get_config()
    assert gate.rule.threshold == 0.9
    # Training goes on from the file, optimizer state included.
    loaded.fit(INPUTS, INPUTS[:, :1], verbose=0)


def test_the_weights_file_is_exact(tmp_path):
    model = trained_model()
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = make_model()
    loaded.load_weights(tmp_path / "model.weights.h5")
    assert_same(loaded, model)


def test_facts_about_the_training_run_are_not_saved(tmp_path):
    model = make_model()
    gate = model.get_layer("gate")
    gate.set_steps_per_epoch(77)
    gate.kl_factor.assign(0.5)
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = make_model()
    loaded.load_weights(tmp_path / "model.weights.h5")
    assert float(loaded.get_layer("gate").kl_factor.value) == 1.0


def test_another_multiplier_loads_the_same_posterior(tmp_path):
    model = trained_model()
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = make_model(learning_rate_multiplier=3.0)
    loaded.load_weights(tmp_path / "model.weights.h5")
    assert not np.allclose(raw(loaded), raw(model))
    ours, theirs = (m.get_layer("gate").posterior for m in (loaded, model))
    np.testing.assert_allclose(ours.mu, theirs.mu, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(ours.log_sigma, theirs.log_sigma, rtol=1e-6)


def test_another_number_of_units_is_refused_by_name(tmp_path):
    gate, other = SBPLayer(name="gate_7"), SBPLayer()
    gate.build((None, 4))
    other.build((None, 3))
    store = {}
    other.save_own_variables(store)
    with pytest.raises(ValueError, match=r"'gate_7' has 4 units.*shape \(3,\)"):
        gate.load_own_variables(store)
    with pytest.raises(ValueError, match="'gate_7' found the weights of something else"):
        gate.load_own_variables({"0": np.zeros(4)})


def test_a_clone_has_its_own_gate():
    model = trained_model()
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(raw(clone), raw(model))
    clone.get_layer("gate").set_posterior(0.0, 0.0)
    assert not np.array_equal(raw(clone), raw(model))


LOAD = """
import sys, numpy as np, keras, keras_sbp.layers
folder = sys.argv[1]
model = keras.models.load_model(folder + "/model.keras")
inputs = np.load(folder + "/inputs.npy")
run = lambda: keras.ops.convert_to_numpy(model(inputs))
outputs = [run()]
model.get_layer("gate").set_posterior(0.0, 0.0)
model.load_weights(folder + "/model.weights.h5")
outputs.append(run())
np.save(folder + "/outputs.npy", outputs)
"""


def test_a_fresh_process_loads_both_files_exactly(tmp_path):
    model = trained_model()
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    np.save(tmp_path / "inputs.npy", INPUTS)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path)], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = [run(model), run(model)]
    np.testing.assert_array_equal(np.load(tmp_path / "outputs.npy"), expected)


def check_golden(model, number):
    expected = np.load(GOLDEN / f"gate_{number}.npz")
    gate = model.get_layer("gate")
    np.testing.assert_array_equal(gate.posterior.mu, expected["mu"])
    np.testing.assert_array_equal(gate.posterior.log_sigma, expected["log_sigma"])
    np.testing.assert_array_equal(gate.keep(), expected["keep"])
    assert 0 < expected["keep"].sum() < 3
    alive = {1: [True, True, True], 2: [False, True, True]}[number]
    np.testing.assert_array_equal(gate.alive, alive)
    np.testing.assert_allclose(run(model), expected["outputs"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("number", [1, 2])
def test_the_golden_files_still_load(number):
    model = keras.models.load_model(GOLDEN / f"gate_{number}.keras")
    check_golden(model, number)
    gate = model.get_layer("gate")
    assert (gate.num_samples, gate.rule.threshold, gate.seed) == (100, 0.9, 3)
    gate.set_posterior(0.0, 0.0)
    gate.freeze(np.array([True, False, False]))
    model.load_weights(GOLDEN / f"gate_{number}.weights.h5")
    check_golden(model, number)
