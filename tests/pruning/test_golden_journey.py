"""Files of earlier versions load, and give the numbers that they gave."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_sbp
from tests.pruning.make_golden_journey import IMAGES, RULES, make_model, path

RULE = pytest.mark.parametrize("rule", RULES)


@pytest.fixture
def golden(rule: str) -> dict[str, np.ndarray]:
    with np.load(path(rule, ".npz")) as arrays:
        return dict(arrays)


def check_gated(model: keras.Model, golden: dict[str, np.ndarray]) -> None:
    outputs = keras.ops.convert_to_numpy(model(IMAGES, training=False))
    np.testing.assert_allclose(outputs, golden["gated"], rtol=1e-5, atol=1e-6)
    for name in ("conv_gate", "dense_gate"):
        gate = model.get_layer(name)
        np.testing.assert_allclose(gate.snr(), golden[f"{name}_snr"], rtol=1e-6)
        np.testing.assert_array_equal(gate.keep(), golden[f"{name}_keep"])
        np.testing.assert_array_equal(gate.alive, golden[f"{name}_alive"])
    small, report = keras_sbp.prune(model)
    assert [row.units_after for row in report.layers] == list(golden["units"])
    outputs = keras.ops.convert_to_numpy(small(IMAGES, training=False))
    np.testing.assert_allclose(outputs, golden["small"], rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The KL outweighs:UserWarning")
@RULE
def test_gated_model(rule: str, golden: dict[str, np.ndarray]) -> None:
    model = keras.models.load_model(path(rule, "_gated.keras"))
    for name in ("conv_gate", "dense_gate"):
        assert model.get_layer(name).rule.get_config() == RULES[rule].get_config()
    check_gated(model, golden)
    # It was saved compiled, and trains on.
    x = np.ones((8, 6, 6, 2), "float32")
    monitor = keras_sbp.SNRMonitor(verbose=0)
    history = model.fit(x, x.mean((1, 2)), verbose=0, callbacks=[monitor])
    assert np.isfinite(history.history["loss"]).all()


@RULE
def test_weights_alone(rule: str, golden: dict[str, np.ndarray]) -> None:
    model = make_model(RULES[rule])
    model.load_weights(path(rule, "_gated.weights.h5"))
    check_gated(model, golden)


@RULE
def test_pruned_model(rule: str, golden: dict[str, np.ndarray]) -> None:
    small = keras.models.load_model(path(rule, "_small.keras"))
    outputs = keras.ops.convert_to_numpy(small(IMAGES, training=False))
    np.testing.assert_allclose(outputs, golden["small"], rtol=1e-5, atol=1e-6)


@pytest.mark.tensorflow
@RULE
def test_litert_file(rule: str, golden: dict[str, np.ndarray]) -> None:
    from keras_sbp.formats.litert_model import LiteRTModel

    model = LiteRTModel(path(rule, "_small.tflite"))
    outputs = np.concatenate([y for x in IMAGES for y in model(x[None]).values()])
    np.testing.assert_allclose(outputs, golden["small"], rtol=1e-4, atol=1e-5)
