"""Integers that a model turns into real numbers, in files that compute in integers only."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from keras_sbp import export
from keras_sbp.formats.litert_model import LiteRTModel
from tests.formats.architectures import answers

pytestmark = pytest.mark.tensorflow


def _head(x):
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    return layers.Dense(4)(layers.GlobalAveragePooling2D()(x))


def _image(dtype: str = "uint8"):
    return keras.Input((12, 12, 3), dtype=dtype, name="image")


def phone(dtype: str = "uint8") -> keras.Model:
    image = _image(dtype)
    return keras.Model(image, _head(layers.Rescaling(1 / 127.5, offset=-1)(image)))


def normalised() -> keras.Model:
    image = _image()
    x = layers.Normalization(mean=[120.0, 110.0, 100.0], variance=[3600.0] * 3)(image)
    return keras.Model(image, _head(x))


def cropped() -> keras.Model:
    """The cast comes behind an operation on the integers themselves."""
    image = _image()
    return keras.Model(image, _head(layers.Rescaling(1 / 255)(image[:, 2:-2, 2:-2])))


def mixed() -> keras.Model:
    """Integers, truth values and real numbers beside the image; and tokens, which stay tokens."""
    image, real = _image(), keras.Input((3,), name="real")
    flags = keras.Input((3,), dtype="bool", name="flags")
    ages = keras.Input((2,), dtype="int32", name="ages")
    tokens = keras.Input((5,), dtype="int32", name="tokens")
    words = layers.GlobalAveragePooling1D()(layers.Embedding(7, 8)(tokens))
    parts = [
        _head(layers.Rescaling(1 / 255)(image)),
        layers.Rescaling(1 / 50)(ages),
        keras.ops.cast(flags, "float32"),
        real,
        words,
    ]
    x = layers.Dense(3)(layers.Concatenate()(parts))
    return keras.Model([image, real, flags, ages, tokens], x)


def _examples(model: keras.Model, count: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    low = {"int8": -128, "uint8": 0, "bool": 0, "int32": 0}
    high = {"image": 128 if model.inputs[0].dtype == "int8" else 256, "ages": 90, "tokens": 7}
    found = {}
    for tensor in model.inputs:
        shape = (count, *tensor.shape[1:])
        if tensor.dtype == "float32":
            found[tensor.name] = rng.standard_normal(shape).astype("float32")
        else:
            values = rng.integers(low[tensor.dtype], high.get(tensor.name, 2), shape)
            if tensor.name == "image":  # some dark, some light
                values = values * rng.random((count, 1, 1, 1))
            found[tensor.name] = values.astype(tensor.dtype)
    return found


def _error(model: keras.Model, path: str, batch: dict[str, np.ndarray]) -> float:
    """Root mean square of the difference, as a fraction of that of the output."""
    run = LiteRTModel(path)
    count = len(next(iter(batch.values())))
    received = [run({n: v[i : i + 1] for n, v in batch.items()})["output_0"] for i in range(count)]
    expected = answers(model, batch)["output_0"]
    delta = np.concatenate(received) - expected
    return float(np.sqrt(np.mean(delta**2) / np.mean(expected**2)))


@pytest.mark.parametrize(
    ("build", "quantization"),
    [
        (phone, "int8"),
        (phone, "int16x8"),
        (phone, "dynamic_int8"),
        (phone, "float16"),
        (lambda: phone("int8"), "int8"),
        (lambda: phone("int32"), "int16x8"),
        (normalised, "int8"),
        (cropped, "int8"),
        (mixed, "int8"),
    ],
)
def test_a_model_with_integer_inputs_is_quantised(build, quantization, tmp_path):
    model = build()
    report = export(
        model,
        tmp_path / "m.tflite",
        quantization=quantization,
        calibration_data=_examples(model, 60, seed=0),
    )
    given = {name: dtype for name, (_, dtype) in LiteRTModel(report.path).inputs.items()}
    assert given == {tensor.name: np.dtype(tensor.dtype) for tensor in model.inputs}
    assert _error(model, report.path, _examples(model, 8, seed=1)) < report.tolerance


@pytest.mark.parametrize("integer_io", [False, True])
def test_the_cast_of_an_image_is_its_quantisation(integer_io, tmp_path):
    model = phone()
    data = _examples(model, 60, seed=0)
    report = export(
        model,
        tmp_path / "m.tflite",
        quantization="int8",
        calibration_data=data,
        integer_io=integer_io,
    )
    work = ("QUANTIZE", "CONV_2D", "MEAN", "FULLY_CONNECTED")
    assert report.ops == (work if integer_io else (*work, "DEQUANTIZE"))
    import tensorflow as tf

    (image,) = tf.lite.Interpreter(report.path).get_input_details()
    assert (image["dtype"], image["quantization"]) == (np.uint8, (1.0, 0))
    for value in (0, 255):
        one = {"image": np.full((1, 12, 12, 3), value, "uint8")}
        assert _error(model, report.path, one) < 0.1


def test_a_file_without_such_casts_is_left_as_it_is(convnet, tmp_path):
    from keras_sbp.formats.integer_casts import fold_integer_casts

    images = np.random.default_rng(0).standard_normal((20, 8, 8, 1)).astype("float32")
    report = export(convnet, tmp_path / "m.tflite", quantization="int8", calibration_data=images)
    before = (tmp_path / "m.tflite").read_bytes()
    fold_integer_casts(report.path)
    assert (tmp_path / "m.tflite").read_bytes() == before


def test_numbers_that_do_not_fit_stay_refused(tmp_path):
    model = phone("int64")
    data = {"image": np.random.default_rng(0).integers(0, 256, (20, 12, 12, 3))}
    with pytest.raises(ValueError, match=r"no integer kernel for CAST"):
        export(model, tmp_path / "m.tflite", quantization="int8", calibration_data=data)
    assert list(tmp_path.iterdir()) == []
