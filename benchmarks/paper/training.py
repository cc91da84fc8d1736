"""Training that goes on where it stopped, and writes down each epoch."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import keras_sbp
from keras_sbp.demo.training import Checkpoints

BATCH_SIZE = 128
BINS = np.linspace(-4.0, 4.0, 33)


def fit(
    model: keras.Model,
    data: Any,
    path: pathlib.Path,
    *,
    epochs: int,
    seed: int,
    compile_with: dict[str, Any],
    callbacks: Callable[[], list] = list,
) -> keras.Model:
    """Returns the trained model: read from its file, or trained and written there.

    Args:
        model: what is to be trained.
        data: `(x, y)`, or `images.ShuffledImages`.
        path: of the finished model; checkpoints and the history are kept beside it.
        epochs: to train.
        seed: of everything random.
        compile_with: arguments of `compile`.
        callbacks: makes the callbacks.
    """
    if path.exists():
        return keras.saving.load_model(path, compile=False)
    checkpoints = Checkpoints(path.with_suffix(".checkpoints"))
    done = checkpoints.epochs_done()
    keras.utils.set_random_seed(1000 * seed + done)
    # On one core XLA makes TensorFlow three times slower and more (LeNet-5, gated or not).
    model.compile(**compile_with, jit_compile=keras.backend.backend() != "tensorflow")
    checkpoints.restore(model)
    if isinstance(data, tuple):
        inputs = {"x": data[0], "y": data[1], "batch_size": BATCH_SIZE}
    else:
        inputs = {"x": data, "shuffle": False}
        data.start(done)
    path.parent.mkdir(parents=True, exist_ok=True)
    model.fit(
        **inputs,
        epochs=epochs,
        initial_epoch=done,
        callbacks=[*callbacks(), History(path.with_suffix(".history.json")), checkpoints],
        verbose=0,
    )
    scratch = path.with_name(f"writing-{path.name}")
    model.save(scratch)
    os.replace(scratch, path)
    checkpoints.remove_weights()
    return model


class History(keras.callbacks.Callback):
    """Writes what Keras logs, and each gate's kept units and histogram of log10 SNR, per epoch."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds one epoch; what was written of later ones before a crash is forgotten."""
        before = json.loads(self.path.read_text()) if self.path.exists() else []
        row: dict[str, Any] = {
            key: float(value) for key, value in (logs or {}).items() if not key.startswith("sbp_")
        }
        gates = [layer for layer in self.model.layers if isinstance(layer, keras_sbp.SBPLayer)]
        row["gates"] = {gate.name: _state(gate) for gate in gates}
        scratch = self.path.with_suffix(".part")
        scratch.write_text(json.dumps([*before[:epoch], row]))
        os.replace(scratch, self.path)


def _state(gate: keras_sbp.SBPLayer) -> dict[str, Any]:
    snr = np.log10(np.maximum(gate.snr(), 1e-300))
    counts, _ = np.histogram(np.clip(snr, BINS[0], BINS[-1]), BINS)
    return {"kept": int(gate.keep().sum()), "log10_snr": counts.tolist()}
