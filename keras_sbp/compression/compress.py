"""From a trained network to a small one of a given cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras

from keras_sbp._arguments import check_count
from keras_sbp.callbacks import GradualPruning
from keras_sbp.compression.backup import Backup, KeepState, fingerprint
from keras_sbp.compression.gated import gated_network, told_by
from keras_sbp.compression.report import CompressReport
from keras_sbp.compression.settings import compile_like, spare_posteriors
from keras_sbp.compression.statistics import keeping_up
from keras_sbp.compression.student import AsksTeacher, check_teacher, student_of
from keras_sbp.compression.training_data import TrainingData, training_data
from keras_sbp.pruning import prune
from keras_sbp.rules import Budget, OnlyFrozen
from keras_sbp.telling import write


def compress(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    *,
    target: Budget | Mapping[str, int | float],
    epochs: int,
    batch_size: int | None = None,
    validation_data: Any = None,
    teacher: keras.Model | str | None = "original",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    backup_dir: Any = None,
    verbose: int | str = "auto",
    **fit_options: Any,
) -> tuple[keras.Model, CompressReport]:
    """Makes a trained network small, and trains it while it gets so.

    Gates are inserted, and trained with the network for about half of the
    epochs; meanwhile units go, until the target is met. Then the gates go,
    with a verification that nothing else changes, and what is left of the
    epochs trains the small network. All the while the original teaches: half
    of the loss is the distance to its outputs.

    The model must be compiled: its loss, metrics and settings are used, and an
    optimizer of the same kind, whose learning rate starts anew; where the model
    is of a class with a `train_step` or `compute_loss` of its own, that trains.
    The given model is not changed.

    Reference:
        Neklyudov et al. (2017), Structured Bayesian Pruning via Log-Normal
        Multiplicative Noise (https://arxiv.org/abs/1705.07283); Zhu and Gupta
        (2017), To Prune, or Not to Prune (https://arxiv.org/abs/1710.01878);
        Hinton, Vinyals, Dean (2015), Distilling the Knowledge in a Neural
        Network (https://arxiv.org/abs/1503.02531).

    Args:
        model: A trained, compiled model, with or without gates.
        x: Training inputs, or whatever else `fit` takes.
        y: Training targets. None where `x` holds them, or where the teacher
            is all that the network is to learn from.
        target: What is to remain: a `Budget`, or a mapping from names of
            layers to numbers or fractions of units, see `GradualPruning`.
        epochs: How many epochs to train, with gates and without together.
        batch_size: As for `fit`.
        validation_data: As for `fit`; the report's figures are of these.
        teacher: `"original"` is the given model; or another one with the same
            inputs and outputs, or None.
        callbacks: For both parts of the training. They see epochs with one
            numbering, and `on_train_begin` twice.
        backup_dir: A folder for the state after each epoch. After a crash, the
            same call goes on from there; when it is done the folder is deleted.
        verbose: As for `fit`; 0 says nothing at all.
        **fit_options: Further arguments of `fit`, such as `class_weight` or
            `steps_per_epoch`.

    Returns:
        `(small, report)`: a `keras.Model` of stock layers, compiled as the
        given model is and of its class where that trains in its own way, and
        a `CompressReport`.

    Raises:
        TypeError: If the model, the target or the teacher is of another type.
        ValueError: If the model is not compiled, has nothing to gate or is of
            a class that cannot train other layers; if the target cannot be
            met; if an argument is out of its range.
        RuntimeError: If the small network is not the same function as the
            gated one.

    Example:

    >>> small, report = keras_sbp.compress(
    ...     model, x, y, target=keras_sbp.Budget(macs=0.5), epochs=2
    ... )
    """
    started = time.monotonic()
    epochs = check_count("compress", "epochs", epochs, such_as=8)
    _check_compiled(model)
    data = training_data(x, y, batch_size, validation_data, fit_options)
    teacher = check_teacher(model, teacher)
    gated_epochs = max(1, round(epochs / 2))
    arguments = {"target": str(target), "epochs": epochs, "weights": fingerprint(model)}
    backup = Backup(backup_dir, arguments, gated_epochs)
    training = _Training(model, data, teacher, callbacks, backup, verbose)

    before = data.evaluate(model)
    gated = gated_network(model, data.steps(), gated_epochs)
    # The last units go when there is time left for what remains to adapt.
    schedule = {"begin": 0.3, "end": 1.0} if gated_epochs < epochs else {"begin": 0.2, "end": 0.7}
    pruning = GradualPruning(target, **schedule)
    training.say(f"{gated_epochs} of {epochs} epochs with gates, to {target!r}")
    training.run(gated, range(0, gated_epochs), [*told_by(gated), pruning], pruning.finish)
    small, pruned = prune(gated, OnlyFrozen())
    training.say(f"{pruned}; {epochs - gated_epochs} epochs without gates")
    training.run(small, range(gated_epochs, epochs))
    small = student_of(small, model, None)
    compile_like(small, model)
    report = CompressReport(
        pruned=pruned,
        before=before,
        after=data.evaluate(small),
        history=training.history,
        gated_epochs=gated_epochs,
        epochs=epochs,
        seconds=time.monotonic() - started,
    )
    backup.delete()
    training.say(str(report))
    return small, report


class _Training:
    """Both parts of the training."""

    def __init__(
        self,
        original: keras.Model,
        data: TrainingData,
        teacher: keras.Model | None,
        callbacks: Iterable[keras.callbacks.Callback],
        backup: Backup,
        verbose: int | str,
    ) -> None:
        self._original, self._data, self._teacher = original, data, teacher
        self._callbacks, self._backup, self._verbose = list(callbacks), backup, verbose
        self.history: dict[str, list[float]] = {}
        self._steps = 0

    def say(self, line: str) -> None:
        if self._verbose:
            write(f"compress: {line}")

    def run(
        self,
        network: keras.Model,
        epochs: range,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        finish: Callable[[], None] = lambda: None,
    ) -> None:
        """Trains a network for some epochs, or those of them that are not over yet.

        Callbacks of the user's may stop it, or restore weights. What is to hold in any case,
        `finish` does, before the state counts as that of the last epoch.
        """
        student = student_of(network, self._original, self._teacher)
        compile_like(student, self._original, steps_before=self._steps)
        spare_posteriors(student)
        done = min(self._backup.epochs_done(), epochs.stop)
        if done > epochs.start:
            self.history = self._backup.restore(student, done)
        left = range(max(done, epochs.start), epochs.stop)
        if left:
            keep = KeepState(self._backup, self.history)
            callbacks = [*callbacks, *self._callbacks, AsksTeacher(), keep]
            with keeping_up(network, self._data.steps(), len(epochs)):
                self._data.fit(student, left, callbacks, self._verbose)
            finish()
            self.history = keep.history
            self._backup.save(student, epochs.stop, self.history)
        self._steps += int(student.optimizer.iterations)


def _check_compiled(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"compress makes a keras.Model small. Received: model={model!r} (of type "
            f"{type(model).__name__}). Pass a trained, compiled keras.Model."
        )
    if not model.compiled or model.optimizer is None:
        raise ValueError(
            f"compress trains '{model.name}' with its own loss and optimizer. Expected a compiled "
            "model. Received: one that is not. Call model.compile(optimizer, loss, metrics) first."
        )
