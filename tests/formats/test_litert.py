from __future__ import annotations

import sys

import keras
import numpy as np
import pytest
from keras import layers

from keras_sbp import export
from keras_sbp.formats.litert_model import LiteRTModel
from keras_sbp.layers import find_gates

pytestmark = pytest.mark.tensorflow

OPS = ("CONV_2D", "MAX_POOL_2D", "RESHAPE", "FULLY_CONNECTED", "FULLY_CONNECTED", "SOFTMAX")


def _images(count: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 8, 8, 1)).astype("float32")


def test_batch_of_one_needs_no_shape_arithmetic(convnet, tmp_path):
    report = export(convnet, tmp_path / "m.tflite")
    assert report.ops == OPS
    assert report.batch_size == 1
    assert LiteRTModel(report.path).inputs["image"][0] == (1, 8, 8, 1)


@pytest.mark.parametrize("batch_size", [None, 5])
def test_batch_size(convnet, tmp_path, batch_size):
    report = export(convnet, tmp_path / "m.tflite", batch_size=batch_size)
    runtime = LiteRTModel(report.path)
    images = _images(5)
    np.testing.assert_allclose(
        runtime(images)["output_0"], convnet.predict(images, verbose=0), atol=1e-5
    )
    assert runtime.inputs["image"][0] == (batch_size or -1, 8, 8, 1)
    assert report.batch_size == batch_size


def test_a_batch_size_of_the_model_itself_is_kept(tmp_path):
    inputs = keras.Input(batch_shape=(4, 3))
    report = export(keras.Model(inputs, layers.Dense(2)(inputs)), tmp_path / "m.tflite")
    assert report.batch_size == 4


def test_gates_are_pruned_away(gated_convnet, tmp_path):
    weights = [w.copy() for w in gated_convnet.get_weights()]
    report = export(gated_convnet, tmp_path / "m.tflite")
    # Two of four channel blocks may need a gather; nothing else may be added.
    assert set(report.ops) <= {*OPS, "GATHER"}
    gates = {gate.name: gate for gate in report.prune_report.gates}
    assert gates["gate_conv"].units_after == 4
    assert gates["gate_dense"].units_after == 5
    image = _images(1)
    np.testing.assert_allclose(
        LiteRTModel(report.path)(image)["output_0"],
        gated_convnet.predict(image, verbose=0),
        atol=1e-5,
    )
    assert len(find_gates(gated_convnet)) == 2, "the user's model was changed"
    for before, after in zip(weights, gated_convnet.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_pruned_file_is_smaller(convnet, gated_convnet, tmp_path):
    large = export(convnet, tmp_path / "large.tflite")
    small = export(gated_convnet, tmp_path / "small.tflite")
    assert small.bytes < large.bytes
    assert small.bytes == (tmp_path / "small.tflite").stat().st_size


def test_report_as_dict_is_json(gated_convnet, tmp_path):
    import json

    report = export(gated_convnet, tmp_path / "m.tflite").to_dict()
    again = json.loads(json.dumps(report))
    assert again["format"] == "litert"
    assert again["ops"][0] == "CONV_2D"
    assert again["max_abs_error"] <= 1e-4
    assert again["prune_report"]["macs_after"] < again["prune_report"]["macs_before"]


def test_an_operation_litert_lacks_is_named_with_its_layer(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(4),
            layers.Activation(keras.ops.erfinv, name="strange"),
            layers.Dense(2),
        ]
    )
    with pytest.raises(ValueError, match=r"Erfinv \(layer 'strange'\)"):
        export(model, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_other_compute_dtypes_are_exported_in_float32(tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    inner = keras.Sequential([keras.Input((6, 6, 4)), layers.Conv2D(4, 3, activation="relu")])
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            inner,
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    report = export(model, tmp_path / "m.tflite")
    assert {"CONV_2D", "FULLY_CONNECTED"} <= set(report.ops) <= {*OPS, "MUL", "ADD"}
    assert LiteRTModel(report.path).outputs["output_0"][1] == np.float32
    assert model.layers[0].compute_dtype != "float32", "the user's model was changed"


@pytest.mark.remedy("Pass verify=False to export it anyway")
def test_verification_catches_a_wrong_file(convnet, tmp_path, monkeypatch):
    other = keras.models.clone_model(convnet)
    monkeypatch.setattr(sys.modules["keras_sbp.formats.litert"], "float32_twin", lambda _: other)
    with pytest.raises(RuntimeError, match="differs from model .*output_0.*verify=False"):
        export(convnet, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []
    report = export(convnet, tmp_path / "m.tflite", verify=False)
    assert report.max_abs_error is None


def test_nothing_to_compare_is_an_error(tmp_path):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.ops.log(0.0 * inputs - 1.0))
    with pytest.raises(RuntimeError, match="NaN or infinite"):
        export(model, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []
