"""Writes golden files of the whole journey: once per file format, never to make a test pass.

They are, for each rule that a gate can have: the trained network with its compile state and some
frozen units, its weights alone, what `prune()` made of it, and the LiteRT file of that. Number 1
was written before gates saved the state of their noise.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from keras import layers

import keras_sbp

GOLDEN = Path(__file__).parent / "golden"
NUMBER = 1
RULES = {
    "snr": keras_sbp.SNRThreshold(0.8),
    "bmrs_normal": keras_sbp.BMRSNormal(threshold=0.5),
    "bmrs_uniform": keras_sbp.BMRSUniform(4),
}
IMAGES = np.random.default_rng(0).normal(size=(4, 6, 6, 2)).astype("float32")


def make_model(rule: keras_sbp.rules.PosteriorRule) -> keras.Model:
    """Returns the architecture of the golden files, untrained."""
    image = keras.Input((6, 6, 2), name="image")
    x = layers.Conv2D(4, 3, use_bias=False, name="conv")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    x = keras_sbp.SBPLayer(rule=rule, seed=1, name="conv_gate")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(6, activation="tanh", name="dense")(x)
    x = keras_sbp.SBPLayer(rule=rule, num_samples=64, noise="batch", seed=2, name="dense_gate")(x)
    return keras.Model(image, layers.Dense(2, name="head")(x), name="journey")


def path(rule: str, suffix: str) -> Path:
    """Returns where a file lies."""
    return GOLDEN / f"journey_{NUMBER}_{rule}{suffix}"


def main() -> None:
    """Trains a little, prunes, and writes the files."""
    x = np.random.default_rng(1).normal(size=(64, 6, 6, 2)).astype("float32")
    for name, rule in RULES.items():
        keras.utils.set_random_seed(5)
        model = make_model(rule)
        model.compile(keras.optimizers.Adam(1e-2), "mse")
        monitor = keras_sbp.SNRMonitor(verbose=0)
        model.fit(x, x.mean((1, 2)), epochs=3, verbose=0, callbacks=[monitor])
        model.get_layer("conv_gate").set_posterior([0, -0.5, -1, 0.2], [-4, 2.5, -1, -3])
        model.get_layer("dense_gate").set_posterior(-0.5, [-4, 2.5, -1, -3, 1, 3])
        model.get_layer("dense_gate").freeze(np.arange(6) != 3)
        small, report = keras_sbp.prune(model)
        model.save(path(name, "_gated.keras"))
        model.save_weights(path(name, "_gated.weights.h5"))
        small.save(path(name, "_small.keras"))
        keras_sbp.export(small, path(name, "_small.tflite"), overwrite=True)
        gates = {gate: model.get_layer(gate) for gate in ("conv_gate", "dense_gate")}
        np.savez(
            path(name, ".npz"),
            gated=model.predict(IMAGES, verbose=0),
            small=small.predict(IMAGES, verbose=0),
            units=[row.units_after for row in report.layers],
            **{f"{gate}_snr": layer.snr() for gate, layer in gates.items()},
            **{f"{gate}_keep": layer.keep() for gate, layer in gates.items()},
            **{f"{gate}_alive": layer.alive for gate, layer in gates.items()},
        )


if __name__ == "__main__":
    main()
