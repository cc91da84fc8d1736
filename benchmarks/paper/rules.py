"""Pruning, by the rules that the table compares."""

from __future__ import annotations

import keras
import numpy as np

import keras_sbp
from benchmarks.paper import torch_pruning
from benchmarks.paper.config import Prune
from keras_sbp.demo.data import Dataset
from keras_sbp.rules import Rule

OF_POSTERIORS = {
    "snr": keras_sbp.SNRThreshold,
    "bmrs_uniform": keras_sbp.BMRSUniform,
}
OF_WEIGHTS = {"l1": keras_sbp.L1Norm, "batch_norm": keras_sbp.BatchNormScale}
OF_TORCH_PRUNING = {"torch_pruning_l1": "l1", "torch_pruning_taylor": "taylor"}
SAMPLES = 2048


def pruned(model: keras.Model, how: Prune, data: Dataset, seed: int) -> keras.Model:
    """Returns the small network.

    Args:
        model: with gates or without, as the rule needs it.
        how: what the row says.
        data: its training images are what Taylor, reweighting and Torch-Pruning look at.
        seed: of the choice of images.
    """
    order = np.random.default_rng(seed).permutation(len(data.x_train))
    x, y = data.x_train[order[:SAMPLES]], data.y_train[order[:SAMPLES]]
    if how.rule in OF_TORCH_PRUNING:
        return torch_pruning.pruned(model, OF_TORCH_PRUNING[how.rule], how.budget, x, y, seed)
    rule = _rule(how.rule, x, y)
    if how.budget is not None:
        rule = keras_sbp.Budget(macs=how.budget, base=rule, min_keep=1)
    samples = x[: how.reweight] if how.reweight else None
    small, _ = keras_sbp.prune(model, rule, reweight=samples)
    return small


def _rule(name: str, x: np.ndarray, y: np.ndarray) -> Rule:
    if name == "taylor":
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return keras_sbp.Taylor((x, y), loss=loss)
    return (OF_POSTERIORS | OF_WEIGHTS)[name]()
