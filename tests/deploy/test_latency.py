"""The yardstick for budgets of latency."""

from __future__ import annotations

import pathlib

import keras
import pytest
from keras import layers

from keras_sbp.deploy.latency import LatencyYardstick

pytestmark = pytest.mark.tensorflow


def network(width: int) -> keras.Model:
    return keras.Sequential(
        [keras.Input((32, 32, 3)), layers.Conv2D(width, 5), layers.Conv2D(width, 5)]
    )


def test_a_network_of_a_thousandth_of_the_work_is_faster() -> None:
    yardstick = LatencyYardstick(network(64))
    assert yardstick.fraction(network(2)) < 0.5


def test_files_do_not_outlive_it() -> None:
    yardstick = LatencyYardstick(network(2))
    folder = pathlib.Path(yardstick._folder.name)
    assert [path.name for path in folder.iterdir()] == ["whole.tflite"]
    del yardstick
    assert not folder.exists()
