"""Dense, gated, pruned, tuned: what a row needs, each read from its file or made anew."""

from __future__ import annotations

import pathlib

import keras

import keras_sbp
from benchmarks.paper import config, networks, rules
from benchmarks.paper.config import Row
from benchmarks.paper.distil import Distillation
from benchmarks.paper.images import to_train
from benchmarks.paper.training import BATCH_SIZE, fit
from keras_sbp.demo.data import Dataset


def run(row: Row, data: Dataset, folder: pathlib.Path, seed: int) -> dict[str, keras.Model]:
    """Returns the models of a row by stage.

    Args:
        row: what to do.
        data: its training images only are used.
        folder: of this seed; stages that other rows finished there are read.
        seed: of everything random.
    """
    models = {"dense": _dense(row, data, folder, seed)}
    if row.gated is not None:
        models["gated"] = _gated(row, models["dense"], data, folder, seed)
    if row.prune is not None:
        source = models.get("gated", models["dense"])
        models["prune"] = _pruned(row, source, data, folder, seed)
    if row.tune is not None:
        models["tune"] = _tuned(row, models["prune"], data, folder, seed)
    return models


def path(row: Row, folder: pathlib.Path, stage: str) -> pathlib.Path:
    """Returns the file of a stage's model; its history has the suffix `.history.json`."""
    return folder / f"{row.key(stage)}.keras"


def _dense(row: Row, data: Dataset, folder: pathlib.Path, seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    stage = row.dense
    rate = keras.optimizers.schedules.CosineDecay(stage.learning_rate, _steps(data, stage.epochs))
    return fit(
        networks.NETWORKS[row.network](),
        to_train(data, stage, seed),
        path(row, folder, "dense"),
        epochs=stage.epochs,
        seed=seed,
        compile_with={"optimizer": keras.optimizers.Adam(rate)} | _loss(),
    )


def _gated(
    row: Row, dense: keras.Model, data: Dataset, folder: pathlib.Path, seed: int
) -> keras.Model:
    stage = row.gated
    rate = _LinearDecay(stage.learning_rate, _steps(data, stage.epochs))
    model = networks.gated(row.network, dense, stage.kl_weight)
    if stage.frozen_norms:
        set_norms_trainable(model, False)

    def callbacks() -> list:
        warmup = [keras_sbp.KLWarmup(stage.warmup_epochs)] if stage.warmup_epochs else []
        return [keras_sbp.SNRMonitor(), *warmup]

    return fit(
        model,
        to_train(data, stage, seed),
        path(row, folder, "gated"),
        epochs=stage.epochs,
        seed=seed,
        compile_with={"optimizer": keras.optimizers.Adam(rate, beta_1=0.95)} | _loss(),
        callbacks=callbacks,
    )


def _pruned(
    row: Row, source: keras.Model, data: Dataset, folder: pathlib.Path, seed: int
) -> keras.Model:
    file = path(row, folder, "prune")
    if file.exists():
        return keras.saving.load_model(file, compile=False)
    small = rules.pruned(source, row.prune, data, seed)
    small.save(file)
    return small


def _tuned(
    row: Row, small: keras.Model, data: Dataset, folder: pathlib.Path, seed: int
) -> keras.Model:
    stage, file = row.tune, path(row, folder, "tune")
    if file.exists():
        return keras.saving.load_model(file, compile=False)
    teacher, loss = None, _loss()
    if stage.distil:
        teacher_row = config.load(stage.teacher) if stage.teacher else row
        teacher = _dense(teacher_row, data, folder, seed)
        loss = {"loss": Distillation(stage.distil, stage.temperature)}
    rate = keras.optimizers.schedules.CosineDecay(stage.learning_rate, _steps(data, stage.epochs))
    return fit(
        copied(small),
        to_train(data, stage, seed, teacher),
        file,
        epochs=stage.epochs,
        seed=seed,
        compile_with={"optimizer": keras.optimizers.Adam(rate)} | loss,
    )


def copied(model: keras.Model) -> keras.Model:
    """Returns a copy whose layers all train."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    set_norms_trainable(copy, True)
    return copy


def set_norms_trainable(model: keras.Model, trainable: bool) -> None:
    """Says of each BatchNormalization whether it trains; without, it runs in inference mode."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = trainable


def _loss() -> dict:
    return {
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": ["accuracy"],
    }


def _steps(data: Dataset, epochs: int) -> int:
    return epochs * -(-len(data.x_train) // BATCH_SIZE)


@keras.saving.register_keras_serializable("keras_sbp_benchmarks")
class _LinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Constant for the first half of the steps, then falling linearly to 0."""

    def __init__(self, rate: float, steps: int) -> None:
        self.rate, self.steps = rate, steps

    def __call__(self, step):
        left = 1.0 - keras.ops.cast(step, "float32") / self.steps
        return self.rate * keras.ops.clip(2.0 * left, 0.0, 1.0)

    def get_config(self) -> dict:
        return {"rate": self.rate, "steps": self.steps}
