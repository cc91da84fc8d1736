"""Small models and examples, as files."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_sbp


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A folder with `plain.keras`, `gated.keras` (3 of 8 units are noise) and `x.npz`."""
    folder = tmp_path_factory.mktemp("files")
    for name, gates in (("plain", []), ("gated", [keras_sbp.SBPLayer(name="gate")])):
        model = keras.Sequential(
            [
                keras.Input((6, 6, 2), name="image"),
                keras.layers.Conv2D(8, 3, activation="relu", name="conv"),
                *gates,
                keras.layers.Flatten(name="flatten"),
                keras.layers.Dense(3, activation="softmax", name="probabilities"),
            ],
            name=name,
        )
        if gates:
            gates[0].set_posterior(0.0, [4.0] * 3 + [-5.0] * 5)
        model.save(folder / f"{name}.keras")
    images = np.random.default_rng(0).normal(size=(32, 6, 6, 2)).astype("float32")
    np.savez(folder / "x.npz", x=images, y=np.arange(32) % 3)
    return folder


@pytest.fixture
def refused(capsys):
    """Runs a command that must be refused: exit code 2, a message, no traceback, no result."""
    from keras_sbp.cli import main

    def run(*arguments, code: int = 2) -> str:
        assert main([str(argument) for argument in arguments]) == code
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        assert "keras-sbp: " in captured.err
        assert captured.out == "" or code == 1
        return captured.err

    return run
