"""Every format holds what the model computes at inference, whatever it does in training."""

from __future__ import annotations

import pathlib

import keras
import numpy as np
import pytest
from keras import layers

from keras_sbp import export
from keras_sbp.formats.base import FORMATS

NAMES = {
    "litert": "m.tflite",
    "saved_model": "m",
    "onnx": "m.onnx",
    "openvino": "m.xml",
    "keras": "m.keras",
}


@keras.saving.register_keras_serializable("tests")
class TrainsByDefault(layers.Layer):
    """As the preprocessing layers of Keras: whoever says nothing gets noise."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed = keras.random.SeedGenerator(1)

    def call(self, x, training=True):
        if not training:
            return 2.0 * x
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seed)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable("tests")
class Outer(layers.Layer):
    """Says nothing about training to the layer inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = TrainsByDefault()

    def call(self, x):
        return self.inner(x)


def augmented() -> keras.Model:
    image = keras.Input((9, 9, 3), name="image")
    augmentation = keras.Sequential(
        [
            layers.RandomFlip(),
            layers.RandomRotation(0.2),
            layers.Pipeline([layers.RandomZoom(0.2), layers.RandomTranslation(0.2, 0.2)]),
            layers.RandomContrast(0.5),
            layers.RandomBrightness(0.2, value_range=(-3, 3)),
        ]
    )
    x = layers.RandomCrop(8, 8)(augmentation(image))
    x = layers.GaussianDropout(0.5)(layers.GaussianNoise(0.5)(x))
    x = layers.Dropout(0.5)(layers.SpatialDropout2D(0.5)(layers.Conv2D(4, 3)(x)))
    return keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


def colored() -> keras.Model:
    """What draws random numbers at inference, too, though nobody reads them there."""
    kinds = [
        layers.RandomSharpness(0.5),
        layers.RandomGrayscale(0.5),
        layers.RandomHue(0.2),
        layers.RandomSaturation(0.2),
        layers.RandomPosterization(3),
        layers.RandomColorDegeneration(0.5),
    ]
    image = keras.Input((9, 9, 3), name="image")
    x = layers.Conv2D(4, 3)(layers.MixUp()(keras.Sequential(kinds)(image)))
    return keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


def own_layers() -> keras.Model:
    image = keras.Input((9, 9, 3), name="image")
    x = keras.Sequential([Outer(), layers.Conv2D(4, 3)], name="nested")(TrainsByDefault()(image))
    return keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "build", [augmented, colored, own_layers], ids=lambda build: build.__name__
)
@pytest.mark.parametrize("format", NAMES)
def test_what_is_random_in_training_is_exported_as_at_inference(build, format, tmp_path):
    model = build()
    report = export(model, tmp_path / NAMES[format])
    runtime = FORMATS[format].load(pathlib.Path(report.path), 1)
    ((name, (shape, _)),) = runtime.inputs.items()
    assert format == "keras" or name == "image"
    assert shape == ((1 if format == "litert" else -1), 9, 9, 3)
    images = np.random.default_rng(1).standard_normal((1, 9, 9, 3)).astype("float32")
    expected = keras.ops.convert_to_numpy(model(images, training=False))
    assert np.ptp(expected) > 1e-3
    for _ in range(2):
        np.testing.assert_allclose(*runtime({"image": images}).values(), expected, atol=1e-5)


@pytest.mark.tensorflow
@pytest.mark.parametrize("quantization", ["float16", "dynamic_int8", "int8"])
def test_a_quantised_file_is_that_of_inference(quantization, tmp_path):
    images = np.random.default_rng(1).standard_normal((60, 9, 9, 3)).astype("float32")
    report = export(
        own_layers(), tmp_path / "m.tflite", quantization=quantization, calibration_data=images
    )
    assert report.relative_error < report.tolerance / 2


def test_the_saved_model_of_any_backend_is_that_of_inference(tmp_path):
    assert export(own_layers(), tmp_path / "m").max_abs_error <= 1e-5


@pytest.mark.tensorflow
def test_what_nobody_reads_is_not_in_the_file(tmp_path):
    images = np.random.default_rng(1).uniform(0, 255, (60, 9, 9, 3)).astype("float32")
    plain = ("CONV_2D", "MEAN", "FULLY_CONNECTED")
    assert export(colored(), tmp_path / "m.tflite").ops == plain
    options = {"quantization": "int16x8", "calibration_data": images}
    report = export(colored(), tmp_path / "q.tflite", **options)
    assert report.ops == ("QUANTIZE", *plain, "DEQUANTIZE")
    assert "RandomUniform" not in str(export(colored(), tmp_path / "m.xml").ops)
    assert "AssignVariableOp" not in _ops_of_saved_model(colored(), tmp_path / "m")


def _ops_of_saved_model(model: keras.Model, path: pathlib.Path) -> set[str]:
    import tensorflow as tf

    serve = tf.saved_model.load(export(model, path).path).signatures["serving_default"]
    graph = serve.graph.as_graph_def()
    bodies = [node for body in graph.library.function for node in body.node_def]
    return {node.op for node in (*graph.node, *bodies)}


class Noisy(layers.Layer):
    """Noise at inference, which is read."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed = keras.random.SeedGenerator(1)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seed)


class Counting(layers.Layer):
    """Adds how often it was called, beside a layer that draws for nothing."""

    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.calls.assign_add(1.0)
        return x + self.calls


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["m.tflite", "m.onnx", "m.xml"])
def test_random_numbers_that_are_read_are_refused(name, tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.RandomHue(0.2), Noisy(name="noisy")])
    with pytest.raises(ValueError, match=r"no operation for .*\(layer 'noisy'\)"):
        export(model, tmp_path / name, verify=False)


@pytest.mark.tensorflow
def test_what_changes_with_every_call_stays_so(tmp_path):
    for layer in (Noisy(), Counting()):
        model = keras.Sequential([keras.Input((8, 8, 3)), layers.RandomHue(0.2), layer])
        path = tmp_path / layer.name
        export(model, path, verify=False)
        runtime = FORMATS["saved_model"].load(path, 1)
        image = {name: np.zeros((1, 8, 8, 3), "float32") for name in runtime.inputs}
        first, second = (next(iter(runtime(image).values())) for _ in range(2))
        assert np.abs(first - second).min() > 0
