"""examples/tfmot runs, on random images and a network of few weights."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import keras_sbp

pytestmark = [pytest.mark.tensorflow, pytest.mark.tfmot]

SCRIPT = pathlib.Path(__file__).parents[2] / "examples/tfmot/quantisation_aware_training.py"
SIZES = {"x_train": 64, "x_test": 16}


def network(gated: bool) -> keras.Model:
    stack = [
        keras.Input((28, 28, 1)),
        layers.Conv2D(6, 5, strides=3, activation="relu"),
        keras_sbp.SBPLayer(name="gate"),
        layers.Flatten(),
        layers.Dense(10),
    ]
    return keras.Sequential([s for s in stack if gated or not isinstance(s, keras_sbp.SBPLayer)])


def test_every_file_is_measured(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (n, 28, 28), "uint8") for name, n in SIZES.items()}
    labels = {f"y{name[1:]}": rng.integers(0, 10, n) for name, n in SIZES.items()}
    np.savez(tmp_path / "mnist.npz", **images, **labels)
    gated = network(gated=True)
    gated.get_layer("gate").set_posterior([-1.0, -15.0] * 3, [0.1, 3.0] * 3)
    gated.save(tmp_path / "gated.keras")
    network(gated=False).save(tmp_path / "baseline.keras")
    command = [sys.executable, str(SCRIPT), "--epochs", "1"]
    for option in ("--data", "--networks"):
        command += [option, str(tmp_path)]
    command += ["--json", str(tmp_path / "results.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    sizes = {row["model"]: row["bytes"] for row in rows}
    assert len(sizes) == 7
    assert sizes["not pruned, float32"] > sizes["pruned, float32"] > sizes["pruned, float16"]
    assert sizes["pruned, float32"] > sizes["pruned, int8 with training"]
    assert all(0 <= row["accuracy"] <= 1 and row["faster"] > 0 for row in rows)
