"""How much faster one model runs than another."""

from __future__ import annotations

import pathlib

import keras
import pytest
from keras import layers

from keras_sbp import export
from keras_sbp.benchmarking.latency import LatencyYardstick, compare_latency

pytestmark = pytest.mark.tensorflow


def network(width: int) -> keras.Model:
    return keras.Sequential(
        [keras.Input((32, 32, 3)), layers.Conv2D(width, 5), layers.Conv2D(width, 5)]
    )


def _dense(units: int) -> keras.Model:
    layer = layers.Dense
    return keras.Sequential([keras.Input((64,), name="x"), layer(units), layer(units), layer(2)])


def test_a_network_of_a_thousandth_of_the_work_is_faster() -> None:
    yardstick = LatencyYardstick(network(64))
    assert yardstick.fraction(network(2)) < 0.5


def test_files_do_not_outlive_it() -> None:
    yardstick = LatencyYardstick(network(2))
    folder = pathlib.Path(yardstick._folder.name)
    assert [path.name for path in folder.iterdir()] == ["whole.tflite"]
    del yardstick
    assert not folder.exists()


def test_latency_of_a_much_larger_model(tmp_path):
    large = export(_dense(1024), tmp_path / "large.tflite").path
    small = export(_dense(4), tmp_path / "small.tflite").path
    result = compare_latency(large, small, rounds=15)
    assert result.ratio > 5
    assert result.ratio_quartiles[0] <= result.ratio <= result.ratio_quartiles[1]
    assert min(result.first_iqr_us, result.second_iqr_us) >= 0


def test_latency_of_a_model_against_itself(tmp_path):
    path = export(_dense(16), tmp_path / "m.tflite").path
    assert 0.25 < compare_latency(path, path, rounds=50).ratio < 4.0
