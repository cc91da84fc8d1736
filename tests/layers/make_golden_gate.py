"""Writes the golden files: run it once per file format, never to make a test pass.

Format 1 had no frozen units; its files were written by an earlier version of the package.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from keras_sbp.layers import SBPLayer
from keras_sbp.rules import SNRThreshold

GOLDEN = Path(__file__).parent / "golden"
FORMAT = 2
INPUTS = np.linspace(-1.0, 1.0, 8, dtype="float32").reshape(4, 2)


def make_model() -> keras.Model:
    """Returns the architecture of the golden files, untrained."""
    return keras.Sequential(
        [
            keras.Input((2,), name="features"),
            keras.layers.Dense(3, activation="tanh", name="hidden"),
            SBPLayer(num_samples=100, rule=SNRThreshold(0.9), seed=3, name="gate"),
            keras.layers.Dense(1, name="head"),
        ],
        name="golden",
    )


def main() -> None:
    """Trains a little and writes the files."""
    keras.utils.set_random_seed(5)
    model = make_model()
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    model.fit(INPUTS, INPUTS[:, :1], epochs=5, verbose=0)
    gate = model.get_layer("gate")
    gate.log_sigma.assign(gate.log_sigma.value + np.array([0.0, 0.1, 0.9], "float32"))
    gate.freeze(np.array([False, True, True]))
    model.save(GOLDEN / f"gate_{FORMAT}.keras")
    model.save_weights(GOLDEN / f"gate_{FORMAT}.weights.h5")
    np.savez(
        GOLDEN / f"gate_{FORMAT}.npz",
        mu=gate.posterior.mu,
        log_sigma=gate.posterior.log_sigma,
        keep=gate.keep(),
        alive=gate.alive,
        outputs=model.predict(INPUTS, verbose=0),
    )


if __name__ == "__main__":
    main()
