"""What is kept on disk while `compress` runs, so that it can go on after a crash."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import zlib
from typing import Any

import keras
import numpy as np

_WEIGHTS = re.compile(r"epoch-(\d+)\.weights\.h5")


class Backup:
    """A folder with the state after the last whole epoch, and that where the gates went.

    Every file appears in one step, so a crash while writing leaves the state before. Files hold
    weights and numbers only: the networks are made anew.

    Args:
        folder: Where; None keeps nothing.
        what: What says whether a state is of the same call of `compress`, JSON-serialisable.
        gated_epochs: After which epoch the gates go.

    Raises:
        ValueError: If the folder holds the state of another call, or other files.
    """

    def __init__(self, folder: Any, what: dict[str, Any], gated_epochs: int) -> None:
        self._folder = None if folder is None else pathlib.Path(folder)
        self._gated_epochs = gated_epochs
        if self._folder is None:
            return
        note = self._folder / "compress.json"
        what = json.loads(json.dumps(what))
        if not note.exists():
            if self._folder.exists() and any(self._folder.iterdir()):
                raise ValueError(self._refusal("other files"))
            self._folder.mkdir(parents=True, exist_ok=True)
            _write(note, json.dumps(what))
        else:
            there = json.loads(note.read_text())
            differs = [key for key, value in what.items() if there.get(key) != value]
            if differs:
                raise ValueError(self._refusal(f"a state with another {', '.join(differs)}"))

    def _refusal(self, received: str) -> str:
        return (
            "compress goes on where a call with the same arguments stopped. Expected backup_dir to "
            f"be a new folder, or that of such a call. Received: backup_dir='{self._folder}' with "
            f"{received}. Pass another folder, or delete this one."
        )

    def epochs_done(self) -> int:
        """Returns how many epochs are over, 0 if nothing is kept."""
        return max(self._kept(), default=0)

    def restore(self, model: keras.Model, epoch: int) -> dict[str, list[float]]:
        """Gives a compiled model the state after an epoch, and returns the history until then."""
        if not epoch or self._folder is None:
            return {}
        model.optimizer.build(model.trainable_variables)
        model.load_weights(self._folder / _name(epoch))
        return json.loads((self._folder / f"epoch-{epoch}.json").read_text())

    def save(self, model: keras.Model, epoch: int, history: dict[str, list[float]]) -> None:
        """Keeps the state after an epoch, and forgets those before that are not needed."""
        if self._folder is None:
            return
        scratch = self._folder / "writing.weights.h5"
        model.save_weights(scratch, overwrite=True)
        _write(self._folder / f"epoch-{epoch}.json", json.dumps(history))
        os.replace(scratch, self._folder / _name(epoch))
        for older in self._kept():
            if older < epoch and older != self._gated_epochs:
                (self._folder / _name(older)).unlink()
                (self._folder / f"epoch-{older}.json").unlink()

    def delete(self) -> None:
        """Deletes the folder, as nothing is left to go on with."""
        if self._folder is not None:
            shutil.rmtree(self._folder)

    def _kept(self) -> list[int]:
        if self._folder is None:
            return []
        found = map(_WEIGHTS.fullmatch, os.listdir(self._folder))
        return sorted(int(each[1]) for each in found if each)


class KeepState(keras.callbacks.Callback):
    """Keeps the state of a network in training after each epoch.

    Args:
        backup: Where.
        history: Of the epochs before.
    """

    def __init__(self, backup: Backup, history: dict[str, list[float]]) -> None:
        super().__init__()
        self._backup = backup
        self.history = {name: list(values) for name, values in history.items()}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes it."""
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        self._backup.save(self.model, epoch + 1, self.history)


def fingerprint(model: keras.Model) -> int:
    """Returns a number that says whether a model has the same weights as another."""
    total = 0
    for value in model.get_weights():
        total = zlib.crc32(np.ascontiguousarray(value).tobytes(), total)
    return total


def _name(epoch: int) -> str:
    return f"epoch-{epoch}.weights.h5"


def _write(path: pathlib.Path, text: str) -> None:
    scratch = path.with_name(f"writing-{path.name}")
    scratch.write_text(text)
    os.replace(scratch, path)
