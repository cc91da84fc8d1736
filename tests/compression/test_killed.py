"""compress() killed without a chance to say goodbye, and called again."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_sbp

KILLED = """
import os, signal, sys
import keras, keras_sbp, numpy as np
model_file, data_file, folder, epoch = sys.argv[1:]

class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (int(epoch), 1):
            os.kill(os.getpid(), signal.SIGKILL)

data = np.load(data_file)
keras_sbp.compress(
    keras.saving.load_model(model_file), data["x"], data["y"], target=keras_sbp.Budget(macs=0.5),
    epochs=4, batch_size=16, verbose=0, backup_dir=folder, callbacks=[Kill()],
)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[pathlib.Path, pathlib.Path]:
    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(48, 6)).astype("float32")
    y = (x[:, 0] > 0).astype("int32") + (x[:, 1] > 0)
    np.savez(folder / "data.npz", x=x, y=y)
    model = keras.Sequential(
        [keras.Input((6,))]
        + [keras.layers.Dense(12, activation="relu") for _ in range(2)]
        + [keras.layers.Dense(3, activation="softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=16, epochs=2, verbose=0)
    model.save(folder / "trained.keras")
    return folder / "trained.keras", folder / "data.npz"


@pytest.mark.stress
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no system for it")
@pytest.mark.parametrize("epoch", [1, 3])
def test_goes_on_after_kill_9(files, tmp_path, epoch: int) -> None:
    """In the middle of an epoch with gates, and of one without."""
    command = [sys.executable, "-c", KILLED, *map(str, files), str(tmp_path / "b"), str(epoch)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    data, seen = np.load(files[1]), []
    watch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: seen.append(epoch))
    small, report = keras_sbp.compress(
        keras.saving.load_model(files[0]),
        data["x"],
        data["y"],
        target=keras_sbp.Budget(macs=0.5),
        epochs=4,
        batch_size=16,
        verbose=0,
        backup_dir=tmp_path / "b",
        callbacks=[watch],
    )
    assert seen == list(range(epoch, 4))
    assert len(report.history["loss"]) == 4
    assert report.pruned.macs_after <= 0.5 * report.pruned.macs_before
    assert np.isfinite(small.predict(data["x"], verbose=0)).all()
    assert not (tmp_path / "b").exists()
