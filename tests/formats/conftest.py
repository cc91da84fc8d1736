"""Models that every export test can use."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from keras_sbp.layers import SBPLayer

DROPPED, KEPT = 4.0, -5.0  # log sigma: no signal left, hardly any noise


def small_convnet(gated: bool = False) -> keras.Model:
    parts = [
        keras.Input((8, 8, 1), name="image"),
        layers.Conv2D(6, 3, activation="relu", name="conv"),
        SBPLayer(name="gate_conv"),
        layers.MaxPooling2D(name="pool"),
        layers.Flatten(name="flatten"),
        layers.Dense(8, activation="relu", name="dense"),
        SBPLayer(name="gate_dense"),
        layers.Dense(3, activation="softmax", name="probabilities"),
    ]
    return keras.Sequential([p for p in parts if gated or not isinstance(p, SBPLayer)])


@pytest.fixture
def convnet() -> keras.Model:
    return small_convnet()


@pytest.fixture
def gated_convnet() -> keras.Model:
    """A gated network whose gates keep 4 of 6 channels and 5 of 8 dense units."""
    model = small_convnet(gated=True)
    rng = np.random.default_rng(0)
    for name, dropped in (("gate_conv", 2), ("gate_dense", 3)):
        gate = model.get_layer(name)
        log_sigma = np.full(gate.units, KEPT)
        log_sigma[:dropped] = DROPPED
        gate.set_posterior(rng.uniform(-1.0, -0.1, gate.units), log_sigma)
    return model
