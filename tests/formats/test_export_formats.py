"""ONNX, OpenVINO and `.keras` files: what is particular to each."""

from __future__ import annotations

import pathlib
import sys

import keras
import numpy as np
import pytest
from keras import layers

from keras_sbp import export
from keras_sbp.formats.base import FORMATS
from keras_sbp.formats.comparison import compare
from tests.remedies.test_remedies_of_extras import brings

pytestmark = pytest.mark.tensorflow

NAMES = {"onnx": "m.onnx", "openvino": "m.xml", "keras": "m.keras"}


def _images() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((3, 8, 8, 1)).astype("float32")


@pytest.mark.parametrize("format", NAMES)
def test_gates_are_pruned_away(gated_convnet, tmp_path, format):
    report = export(gated_convnet, tmp_path / NAMES[format])
    assert report.prune_report.gates[0].units_after == 4
    received = FORMATS[format].load(pathlib.Path(report.path), 1)({"image": _images()})
    np.testing.assert_allclose(*received.values(), gated_convnet(_images()), atol=1e-5)
    left = {p.name for p in tmp_path.iterdir()}
    assert left == ({"m.xml", "m.bin"} if format == "openvino" else {NAMES[format]})


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_batch_size_and_dtype(convnet, tmp_path, format):
    keras.config.set_dtype_policy("mixed_float16")
    model = keras.Sequential([keras.Input((4,), name="x"), layers.Dense(3), layers.Dense(2)])
    report = export(model, tmp_path / NAMES[format], batch_size=5)
    assert report.batch_size == 5
    assert FORMATS[format].load(pathlib.Path(report.path), 1).inputs == {"x": ((5, 4), np.float32)}


@pytest.mark.parametrize("format", ["onnx", "openvino", "keras", "saved_model"])
def test_free_image_sides(tmp_path, format):
    image = keras.Input((None, None, 3), name="image")
    x = layers.Conv2D(4, 3, strides=2, padding="same")(layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, layers.Dense(2)(layers.GlobalMaxPooling2D()(x)))
    report = export(model, tmp_path / NAMES.get(format, "m"))
    runtime = FORMATS[format].load(pathlib.Path(report.path), 1)
    assert runtime.inputs["image"][0] == (-1, -1, -1, 3)
    for side in (16, 21):
        images = np.random.default_rng(0).uniform(0, 255, (2, side, side + 1, 3))
        images = images.astype("float32")
        np.testing.assert_allclose(*runtime({"image": images}).values(), model(images), atol=1e-5)


@pytest.mark.parametrize("name", ["m.tflite", "m.onnx"])
def test_normalization_and_exact_gelu(tmp_path, name):
    inputs = keras.Input((6, 8))
    statistics = layers.Normalization()
    statistics.adapt(np.random.default_rng(0).standard_normal((50, 6, 8)) * 3 + 1)
    x = layers.LayerNormalization()(statistics(inputs))
    model = keras.Model(inputs, layers.Dense(3, activation="gelu")(x))
    mean = statistics.mean
    assert export(model, tmp_path / name).max_abs_error <= 1e-5
    assert statistics.mean is mean, "the user's model was changed"


@pytest.mark.parametrize("format", ["onnx", "openvino", "keras", "saved_model"])
def test_an_input_as_output_and_an_output_twice(tmp_path, format):
    a, b = keras.Input((3,), name="zeta"), keras.Input((3,), name="alpha")
    head = layers.Dense(2)(layers.Concatenate()([a, b]))
    model = keras.Model([a, b], [a, head, head])
    assert export(model, tmp_path / NAMES.get(format, "m")).max_abs_error <= 1e-5


@pytest.mark.parametrize(("format", "op"), [("onnx", "Erfinv"), ("openvino", "Erfinv")])
def test_an_operation_the_format_lacks_is_named(tmp_path, format, op):
    model = keras.Sequential(
        [keras.Input((6,)), layers.Activation(keras.ops.erfinv, name="strange"), layers.Dense(2)]
    )
    with pytest.raises(ValueError, match=f"cannot be exported to .*no operation for {op}"):
        export(model, tmp_path / NAMES[format], verify=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.remedy("Install it: `pip install 'keras-sbp[")
@pytest.mark.parametrize(
    ("package", "extra", "name"),
    [
        ("onnx", "onnx", "m.onnx"),
        ("tf2onnx", "onnx", "m.onnx"),
        ("onnxruntime", "onnx", "m.onnx"),
        ("openvino", "openvino", "m.xml"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    convnet, tmp_path, monkeypatch, package, extra, name
):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match=rf"'{package}'.*pip install 'keras-sbp\[{extra}\]'"):
            export(convnet, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    assert brings(extra, package)
    export(convnet, tmp_path / name)


def test_a_keras_file_needs_no_packages_and_no_batch_size(convnet, tmp_path):
    with pytest.raises(ValueError, match="keeps the batch axis of the model.*received 2"):
        export(convnet, tmp_path / "m.keras", batch_size=2)
    form = FORMATS["keras"]
    assert (form.packages, form.runtime, form.any_backend) == ((), "", True)


def test_openvino_is_two_files(convnet, tmp_path):
    (tmp_path / "m.bin").write_text("mine")
    with pytest.raises(FileExistsError, match=r"m.bin' exists already. Pass overwrite=True"):
        export(convnet, tmp_path / "m.xml")
    assert (tmp_path / "m.bin").read_text() == "mine"
    report = export(convnet, tmp_path / "m.xml", overwrite=True)
    convnet.layers[-1].bias.assign([1.0, 2.0, 3.0])
    report = export(convnet, tmp_path / "m.xml", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.bin", "m.xml"]
    runtime = FORMATS["openvino"].load(pathlib.Path(report.path), 1)
    np.testing.assert_allclose(*runtime({"image": _images()}).values(), convnet(_images()), 1e-4)


@pytest.mark.parametrize("format", NAMES)
def test_verification_catches_a_wrong_file(convnet, tmp_path, monkeypatch, format):
    other = keras.models.clone_model(convnet)

    def wrong(model, specs, runtime, data, quantization):
        return compare(other, specs, runtime, data, quantization)

    monkeypatch.setattr(sys.modules["keras_sbp.formats.write"], "compare", wrong)
    with pytest.raises(RuntimeError, match="differs from model .*output_0"):
        export(convnet, tmp_path / NAMES[format])
    assert list(tmp_path.iterdir()) == []
