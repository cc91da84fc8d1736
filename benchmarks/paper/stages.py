"""Dense, gated, pruned, tuned: what a row needs, each read from its file or made anew."""

from __future__ import annotations

import dataclasses
import pathlib

import keras
import numpy as np

import keras_sbp
from benchmarks.paper import networks
from benchmarks.paper.config import Row
from benchmarks.paper.distil import Distillation, ShiftedImages
from benchmarks.paper.training import BATCH_SIZE, fit
from keras_sbp.cli.data import Dataset

RULES = {
    "snr": keras_sbp.SNRThreshold,
    "bmrs_normal": keras_sbp.BMRSNormal,
    "bmrs_uniform": keras_sbp.BMRSUniform,
}


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
        models["prune"] = _pruned(row, models["gated"], data, seed)
    if row.tune is not None:
        models["tune"] = _tuned(row, models["prune"], data, folder, seed)
    return models


def history(row: Row, folder: pathlib.Path, stage: str) -> pathlib.Path:
    """Returns the file in which a stage's epochs are written down."""
    return folder / f"{row.key(stage)}.history.json"


def _dense(row: Row, data: Dataset, folder: pathlib.Path, seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    steps = row.dense.epochs * _steps(data)
    rate = keras.optimizers.schedules.CosineDecay(row.dense.learning_rate, steps)
    return fit(
        networks.NETWORKS[row.network](),
        (data.x_train, data.y_train),
        folder / f"{row.key('dense')}.keras",
        epochs=row.dense.epochs,
        seed=seed,
        compile_with={"optimizer": keras.optimizers.Adam(rate)} | _loss(),
    )


def _gated(
    row: Row, dense: keras.Model, data: Dataset, folder: pathlib.Path, seed: int
) -> keras.Model:
    stage = row.gated
    steps = stage.epochs * _steps(data)
    rate = _LinearDecay(stage.learning_rate, steps)

    def callbacks() -> list:
        warmup = [keras_sbp.KLWarmup(stage.warmup_epochs)] if stage.warmup_epochs else []
        return [keras_sbp.SNRMonitor(), *warmup]

    return fit(
        networks.gated(row.network, dense, stage.kl_weight),
        (data.x_train, data.y_train),
        folder / f"{row.key('gated')}.keras",
        epochs=stage.epochs,
        seed=seed,
        compile_with={"optimizer": keras.optimizers.Adam(rate, beta_1=0.95)} | _loss(),
        callbacks=callbacks,
    )


def _pruned(row: Row, gated: keras.Model, data: Dataset, seed: int) -> keras.Model:
    samples = None
    if row.prune.reweight:
        chosen = np.random.default_rng(seed).choice(len(data.x_train), row.prune.reweight, False)
        samples = data.x_train[chosen]
    rule = RULES[row.prune.rule]()
    if row.prune.budget is not None:
        rule = keras_sbp.Budget(macs=row.prune.budget, base=rule)
    small, _ = keras_sbp.prune(gated, rule, reweight=samples)
    return small


def _tuned(
    row: Row, small: keras.Model, data: Dataset, folder: pathlib.Path, seed: int
) -> keras.Model:
    stage = row.tune
    path = folder / f"{row.key('tune')}.keras"
    if path.exists():
        return keras.saving.load_model(path, compile=False)
    steps = stage.epochs * _steps(data)
    rate = keras.optimizers.schedules.CosineDecay(stage.learning_rate, steps)
    teacher = dataclasses.replace(row, network=stage.teacher or row.network)
    images = ShiftedImages(data, _dense(teacher, data, folder, seed), stage.shift, seed, BATCH_SIZE)
    return fit(
        _copy(small),
        images,
        path,
        epochs=stage.epochs,
        seed=seed,
        compile_with={
            "optimizer": keras.optimizers.Adam(rate),
            "loss": Distillation(stage.distil, stage.temperature),
        },
    )


def _copy(model: keras.Model) -> keras.Model:
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def _loss() -> dict:
    return {
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": ["accuracy"],
    }


def _steps(data: Dataset) -> int:
    return -(-len(data.x_train) // BATCH_SIZE)


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
