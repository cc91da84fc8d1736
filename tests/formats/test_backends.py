"""Exporting under other backends: a SavedModel works, LiteRT says what it needs."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_sbp import export


def test_saved_model(gated_convnet, tmp_path):
    import tensorflow as tf

    report = export(gated_convnet, tmp_path / "saved_model")
    images = np.random.default_rng(0).standard_normal((3, 8, 8, 1)).astype("float32")
    serve = tf.saved_model.load(report.path).signatures["serving_default"]
    received = serve(image=tf.constant(images))["output_0"].numpy()
    np.testing.assert_allclose(received, gated_convnet.predict(images, verbose=0), atol=1e-5)


def test_keras_file(gated_convnet, tmp_path):
    report = export(gated_convnet, tmp_path / "m.keras")
    images = np.random.default_rng(0).standard_normal((3, 8, 8, 1)).astype("float32")
    received = keras.saving.load_model(report.path, safe_mode=True).predict(images, verbose=0)
    np.testing.assert_allclose(received, gated_convnet.predict(images, verbose=0), atol=1e-5)


@pytest.mark.parametrize("name", ["m.tflite", "m.onnx", "m.xml"])
def test_formats_that_need_keras_on_tensorflow(convnet, tmp_path, monkeypatch, name):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="KERAS_BACKEND=tensorflow, received jax"):
        export(convnet, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
