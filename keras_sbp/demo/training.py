"""Training that survives an interruption: per epoch a checkpoint, per network a finished file."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import time
from typing import Any

import keras
from rich import progress

from keras_sbp.callbacks import KLWarmup, SNRMonitor
from keras_sbp.demo.data import Dataset
from keras_sbp.demo.recipes import Recipe


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network and what it took.

    Attributes:
        model: The network after its last epoch.
        seconds: Wall time of the training, all its sittings together.
        cpu_seconds: Processor time of the same, over all cores.
        loaded: Whether it was finished before and only read from disk.
    """

    model: keras.Model
    seconds: float
    cpu_seconds: float
    loaded: bool


def train(recipe: Recipe, gated: bool, data: Dataset, folder: pathlib.Path, seed: int) -> Trained:
    """Train one network of a recipe, or go on where an earlier run stopped.

    Args:
        recipe: What to train.
        gated: Whether the network has gates.
        data: Only the training images are used.
        folder: Where checkpoints and the finished network are kept.
        seed: Seed of everything random.

    Returns:
        A `Trained`, the network after the last epoch.
    """
    name = "gated" if gated else "baseline"
    finished = folder / f"{name}.keras"
    checkpoints = Checkpoints(folder / f"{name}-checkpoints")
    if finished.exists():
        model = keras.saving.load_model(finished, compile=False)
        return Trained(model, *checkpoints.times(), loaded=True)
    # A run that goes on must not repeat the noise and the shuffling of the epochs behind it.
    keras.utils.set_random_seed(seed + checkpoints.epochs_done())
    epochs = recipe.gated_epochs if gated else recipe.baseline_epochs
    model = recipe.build(gated)
    _compile(model, recipe, len(data.x_train), epochs)
    checkpoints.restore(model)
    model.fit(
        data.x_train,
        data.y_train,
        batch_size=recipe.batch_size,
        epochs=epochs,
        initial_epoch=checkpoints.epochs_done(),
        callbacks=[*_callbacks(recipe, gated, epochs, name), checkpoints],
        verbose=0 if recipe.quiet else "auto",
    )
    _save(model, finished)
    checkpoints.remove_weights()
    return Trained(model, *checkpoints.times(), loaded=False)


class Checkpoints(keras.callbacks.Callback):
    """Keeps the state after the last whole epoch; a crash while writing leaves the one before.

    `keras.callbacks.BackupAndRestore` writes weights and epoch number to two files, and to the
    place they are read from; here the number is part of the file's name, and the file appears
    in one step.

    Args:
        folder: Where the state is kept.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__()
        self._folder = folder
        self._times_before = (0.0, 0.0)
        self._start = (0.0, 0.0)

    def epochs_done(self) -> int:
        """Number of epochs that the stored state has behind it, 0 if there is none."""
        return max((epoch for epoch, _ in self._states()), default=0)

    def times(self) -> tuple[float, float]:
        """Wall and processor seconds of all epochs so far."""
        try:
            stored = json.loads((self._folder / "times.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return (0.0, 0.0)
        return (stored["seconds"], stored["cpu_seconds"])

    def restore(self, model: keras.Model) -> None:
        """Load the stored state, optimizer included, into a compiled model."""
        states = self._states()
        if states:
            model.optimizer.build(model.trainable_variables)
            model.load_weights(max(states)[1])

    def remove_weights(self) -> None:
        """Delete the stored states; the times stay."""
        for _, path in self._states():
            path.unlink()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start the clocks."""
        self._times_before = self.times()
        self._start = (time.perf_counter(), time.process_time())

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Store the state, then delete the one before it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        older = self._states()
        scratch = self._folder / "writing.weights.h5"
        self.model.save_weights(scratch, overwrite=True)
        os.replace(scratch, self._folder / f"epoch-{epoch + 1:05d}.weights.h5")
        self._write_times()
        for _, path in older:
            path.unlink()

    def _write_times(self) -> None:
        now = (time.perf_counter(), time.process_time())
        wall, cpu = (
            before + stop - start
            for before, stop, start in zip(self._times_before, now, self._start, strict=True)
        )
        scratch = self._folder / "times.json.new"
        scratch.write_text(json.dumps({"seconds": wall, "cpu_seconds": cpu}))
        os.replace(scratch, self._folder / "times.json")

    def _states(self) -> list[tuple[int, pathlib.Path]]:
        found = []
        for path in self._folder.glob("epoch-*.weights.h5"):
            number = re.fullmatch(r"epoch-(\d+)\.weights\.h5", path.name)
            if number:
                found.append((int(number[1]), path))
        return found


class EpochBar(keras.callbacks.Callback):
    """One bar for a whole training, in place of Keras's one per epoch.

    Args:
        title: What stands before the bar.
        epochs: Number of epochs it spans.
    """

    def __init__(self, title: str, epochs: int) -> None:
        super().__init__()
        self._bar = progress.Progress(
            progress.TextColumn(f"{title:<9}"),
            progress.BarColumn(),
            progress.TextColumn("epoch {task.completed:.0f}/{task.total:.0f} {task.fields[said]}"),
            progress.TimeElapsedColumn(),
        )
        self._task = self._bar.add_task(title, total=epochs, said="")

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Show the bar."""
        self._bar.start()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Advance it."""
        said = f"training accuracy {(logs or {}).get('accuracy', 0.0):.2%}"
        self._bar.update(self._task, completed=epoch + 1, said=said)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leave it standing."""
        self._bar.stop()


def _compile(model: keras.Model, recipe: Recipe, examples: int, epochs: int) -> None:
    steps = -(-examples // recipe.batch_size) * epochs
    schedule = keras.optimizers.schedules.CosineDecay(recipe.learning_rate, steps)
    model.compile(
        optimizer=keras.optimizers.Adam(schedule),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def _callbacks(recipe: Recipe, gated: bool, epochs: int, title: str) -> list:
    callbacks: list[keras.callbacks.Callback] = []
    if gated:
        callbacks.append(SNRMonitor())
        if recipe.warmup_epochs:
            callbacks.append(KLWarmup(recipe.warmup_epochs))
    if recipe.quiet:
        callbacks.append(EpochBar(title, epochs))
    return callbacks


def _save(model: keras.Model, path: pathlib.Path) -> None:
    scratch = path.with_name(f"writing-{path.name}")
    model.save(scratch)
    os.replace(scratch, path)
