"""A model and its tf_keras twin: the same weights, the same outputs, the same names."""

from __future__ import annotations

import contextlib
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_sbp
from keras_sbp._keras import input_layer
from keras_sbp.integrations.tfmot import UnsupportedLayerError, to_tf_keras
from tests.remedies.test_remedies_of_extras import brings

with contextlib.suppress(ImportError):  # these tests are not collected without it
    import tf_keras

pytestmark = [pytest.mark.tensorflow, pytest.mark.tfmot]


def randomise(model: keras.Model) -> keras.Model:
    """Weights that show a mistake: no bias is 0, no variance is 1."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name == "alive":
            continue  # of gates: which units are not frozen
        positive = "variance" in weight.name
        values = rng.uniform(0.5, 1.5, weight.shape) if positive else None
        if values is None:
            values = rng.normal(scale=0.4, size=weight.shape)
        weight.assign(values)
    return model


def assert_twins(model: keras.Model) -> tf_keras.Model:
    """Compares them here, not by `to_tf_keras`, on inputs that it has not seen."""
    twin = to_tf_keras(model, verify=False)
    rng = np.random.default_rng(1)

    def draw(x):
        shape = (3, *(n or 9 for n in x.shape[1:]))
        return rng.normal(size=shape) if "float" in x.dtype else rng.integers(0, 5, shape)

    inputs = [draw(x).astype(x.dtype) for x in model.inputs]
    inputs = inputs if len(inputs) > 1 else inputs[0]
    expected = keras.tree.flatten(model(inputs, training=False))
    received = keras.tree.flatten(twin(inputs, training=False))
    assert len(expected) == len(received)
    for old, new in zip(expected, received, strict=True):
        old = np.asarray(old)
        assert np.ptp(old) > 0, "constant outputs show nothing"
        np.testing.assert_allclose(new, old, atol=1e-5 * max(1, np.abs(old).max()))
    assert [input_layer(x).name for x in model.inputs] == twin.input_names
    return twin


LAYERS = {
    (8,): [
        layers.Dense(5, activation="relu"),
        layers.Dense(5, activation="softmax", use_bias=False),
        layers.Dense(5, kernel_regularizer="l2", bias_constraint="non_neg"),
        layers.EinsumDense("ab,bc->ac", 4, bias_axes="c"),
        layers.BatchNormalization(epsilon=0.1),
        layers.BatchNormalization(scale=False, trainable=False),
        layers.LayerNormalization(epsilon=0.01),
        layers.LayerNormalization(center=False),
        layers.Reshape((2, -1)),
        layers.RepeatVector(3),
        layers.Dropout(0.5, seed=1),
        layers.GaussianNoise(0.5),
        layers.ReLU(max_value=1.0, negative_slope=0.1, threshold=0.2),
        layers.LeakyReLU(0.4),
        layers.ELU(0.7),
        layers.PReLU(),
        layers.Softmax(),
        layers.Identity(),
        layers.Rescaling(2.0, offset=-1.0),
        layers.Rescaling(np.arange(8.0), offset=np.ones(8)),
        layers.Normalization(mean=np.arange(8.0), variance=np.arange(1, 9.0)),
    ],
    (9, 4): [
        layers.Conv1D(6, 3, strides=2, padding="same", activation="gelu"),
        layers.Conv1D(6, 3, dilation_rate=2, padding="causal"),
        layers.Conv1DTranspose(6, 3, strides=2),
        layers.DepthwiseConv1D(3, depth_multiplier=2),
        layers.SeparableConv1D(5, 3),
        layers.MaxPooling1D(2),
        layers.AveragePooling1D(2, padding="same"),
        layers.GlobalAveragePooling1D(),
        layers.GlobalMaxPooling1D(keepdims=True),
        layers.ZeroPadding1D(2),
        layers.Cropping1D((1, 2)),
        layers.UpSampling1D(2),
        layers.Permute((2, 1)),
        layers.SpatialDropout1D(0.2),
        layers.LSTM(5),
        layers.GRU(5, return_sequences=True),
        layers.SimpleRNN(5, go_backwards=True),
    ],
    (9, 8, 4): [
        layers.Conv2D(6, 3, strides=2, padding="same", activation="silu"),
        layers.Conv2D(6, (3, 1), groups=2, dilation_rate=2),
        layers.Conv2DTranspose(6, 3, strides=2, padding="same"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, strides=2, padding="same"),
        layers.SeparableConv2D(5, 3, depth_multiplier=2, activation="relu6"),
        layers.BatchNormalization(),
        layers.GroupNormalization(2),
        layers.MaxPooling2D(3, strides=2, padding="same"),
        layers.AveragePooling2D(2),
        layers.GlobalAveragePooling2D(keepdims=True),
        layers.GlobalMaxPooling2D(),
        layers.ZeroPadding2D(((1, 2), (0, 3))),
        layers.Cropping2D(((1, 2), (0, 3))),
        layers.UpSampling2D(2, interpolation="bilinear"),
        layers.PReLU(shared_axes=[1, 2]),
        layers.Flatten(),
        layers.SpatialDropout2D(0.2),
    ],
    (4, 4, 4, 2): [
        layers.Conv3D(3, 2, padding="same"),
        layers.MaxPooling3D(2),
        layers.GlobalAveragePooling3D(),
        layers.ZeroPadding3D(1),
    ],
}


@pytest.mark.parametrize(
    ("shape", "layer"),
    [(shape, layer) for shape, several in LAYERS.items() for layer in several],
    ids=lambda value: "" if isinstance(value, tuple) else value.name,
)
def test_layers(shape, layer):
    model = keras.Sequential([keras.Input(shape), type(layer).from_config(layer.get_config())])
    twin = assert_twins(randomise(model))
    old, new = model.layers[0], twin.layers[-1]
    assert type(new).__name__ in (type(old).__name__, "Activation")
    assert new.name == old.name
    assert new.trainable == old.trainable
    if old.weights:
        assert len(old.weights) == len(new.weights)
    for a, b in zip(old.weights, new.weights, strict=False):
        np.testing.assert_array_equal(a, b)
        assert b.name.split("/")[-1].split(":")[0].endswith(a.name)
    if getattr(old, "kernel_regularizer", None):
        assert new.kernel_regularizer.l2 == pytest.approx(0.01)
        assert isinstance(new.bias_constraint, tf_keras.constraints.NonNeg)


NAMES = ("linear", "relu", "relu6", "sigmoid", "tanh", "softmax", "elu", "selu", "softplus")
NAMES += ("softsign", "silu", "gelu", "exponential", "leaky_relu", "mish", "log_softmax")


@pytest.mark.parametrize("name", [*NAMES, "hard_sigmoid", "hard_silu"])
def test_activations(name):
    x = keras.Input((40,))
    twin = assert_twins(keras.Model(x, layers.Activation(name, name="act")(3 * x)))
    assert twin.get_layer("act")


@pytest.mark.parametrize(
    "merge", ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot"]
)
def test_merges(merge):
    options = {"axes": 1} if merge == "Dot" else {}
    a, b = keras.Input((5,), name="a"), keras.Input((5,), name="b")
    assert_twins(keras.Model([a, b], getattr(layers, merge)(**options)([a, b])))


OPERATIONS = {
    "take": lambda x: ops.take(x, np.array([0, 3, 3, 1]), axis=-1),
    "take of rows": lambda x: ops.take(x, [0, 2], axis=1),
    "add": lambda x: x + ops.relu(x),
    "add a number": lambda x: x + 2,
    "subtract from a number": lambda x: 1.0 - x,
    "multiply by less": lambda x: x * ops.mean(x, axis=1, keepdims=True),
    "add integers": lambda x: x + ops.cast(x, "int32"),
    "cast": lambda x: ops.cast(ops.cast(x, "int32"), "float32"),
    "reshape": lambda x: ops.reshape(x, (-1, 12, 2)),
    "transpose": lambda x: ops.transpose(x, (0, 2, 1)),
    "concatenate": lambda x: ops.concatenate([x, ops.square(x)], axis=-1),
    "item": lambda x: x[:, 1:3, ::2],
    "sum": lambda x: ops.sum(x, axis=(1,)),
    "max": lambda x: ops.max(x, axis=-1, keepdims=True),
    "squeeze": lambda x: ops.squeeze(ops.expand_dims(x, 1), 1),
    "softmax": lambda x: ops.softmax(x, axis=1),
    "silu": ops.silu,
    "tanh": ops.tanh,
    "hard_sigmoid": ops.hard_sigmoid,
    "hard_silu": ops.hard_silu,
    "negative": lambda x: -x,
    "abs": ops.absolute,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name):
    x = keras.Input((6, 4))
    assert_twins(keras.Model(x, OPERATIONS[name](x)))


def test_embedding():
    x = keras.Input((7,), dtype="int32")
    assert_twins(randomise(keras.Model(x, layers.Embedding(5, 3)(x))))


def gated_convnet() -> keras.Model:
    gates = [keras_sbp.SBPLayer(name="gate"), keras_sbp.SBPLayer(name="features")]
    model = keras.Sequential(
        [
            keras.Input((10, 10, 3)),
            layers.Conv2D(8, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            gates[0],
            layers.MaxPooling2D(),
            layers.Flatten(),
            gates[1],
            layers.Dense(10),
        ],
        name="convnet",
    )
    randomise(model)
    gates[0].set_posterior(0.0, [4.0, 4.0, 4.0] + [-5.0] * 5)
    # Features of kept channels go one by one, so that the pruned network takes by index.
    gates[1].set_posterior(0.0, np.where(np.arange(200) % 7 == 0, -5.0, 4.0))
    return model


def test_pruned_network(tmp_path):
    small, _ = keras_sbp.prune(gated_convnet())
    assert any("take" in op.name for op in small.operations)
    twin = assert_twins(small)
    assert twin.name == small.name
    assert twin.count_params() == small.count_params()
    twin.save(tmp_path / "twin.keras")
    again = tf_keras.models.load_model(tmp_path / "twin.keras")
    x = np.ones((2, 10, 10, 3), "float32")
    np.testing.assert_array_equal(again(x), twin(x))


def test_structure():
    """Nested models, a shared layer, several inputs and outputs by name."""
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    shared = layers.Dense(4, activation="tanh", name="shared")
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="inside")], name="inner")
    outputs = {"one": inner(shared(a)), "two": inner(shared(b)), "input": a}
    model = keras.Model({"a": a, "b": b}, outputs, name="outer")
    twin = to_tf_keras(model)
    assert [layer.name for layer in twin.layers].count("shared") == 1
    assert twin.count_params() == model.count_params()
    x = {name: np.random.default_rng(2).normal(size=(3, 6)).astype("float32") for name in "ab"}
    expected, received = model(x), twin(x)
    assert sorted(received) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(received[name], value, atol=1e-6)


def test_free_sizes():
    x = keras.Input((None, None, 3))
    y = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    twin = assert_twins(keras.Model(x, layers.GlobalAveragePooling2D()(y)))
    assert twin.input_shape == (None, None, None, 3)


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    model = keras.Sequential([keras.Input((8,)), layers.Dense(16), layers.Dense(2)])
    twin = to_tf_keras(model)
    assert twin.layers[1].compute_dtype == "float16"
    assert twin.layers[1].variable_dtype == "float32"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("MobileNetV2", {"alpha": 0.35}),
        ("MobileNetV3Small", {"minimalistic": False}),
        ("EfficientNetB0", {}),
        ("ResNet50V2", {}),
    ],
)
def test_applications(name, options):
    shape = (32, 32, 3)
    make = getattr(keras.applications, name)
    model = make(weights=None, input_shape=shape, classes=7, classifier_activation=None, **options)
    assert_twins(model)


class _Mine(layers.Layer):
    def call(self, x):
        return 2 * x


class _MyDense(layers.Dense):
    pass


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: keras_sbp.SBPLayer(name="wrong"), "'wrong' .of type SBPLayer.*prune the model"),
        (lambda: _Mine(name="wrong"), "'wrong' .of type _Mine.*not a stock layer"),
        (lambda: _MyDense(2, name="wrong"), "not a stock layer"),
        (lambda: layers.Lambda(lambda x: x, name="wrong"), "'wrong'"),
        (lambda: layers.Dense(2, activation="hard_sigmoid", name="wrong"), "hard_sigmoid"),
        (lambda: layers.Dense(2, activation=lambda x: x, name="wrong"), "another one in Keras 2"),
        (lambda: layers.LayerNormalization(rms_scaling=True, name="wrong"), "rms_scaling=True"),
        (
            lambda: layers.Dense(
                2, kernel_regularizer=keras.regularizers.OrthogonalRegularizer(), name="wrong"
            ),
            None,
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_keras_2_does_not_have(make, said):
    model = keras.Sequential([keras.Input((4,)), make()])
    if said is None:
        assert to_tf_keras(model).layers[1].kernel_regularizer is not None
        return
    with pytest.raises(UnsupportedLayerError, match=said):
        to_tf_keras(model)


@pytest.mark.remedy("Replace it, or rebuild the model in tf_keras by hand and copy the weights")
def test_unknown_operations():
    x = keras.Input((4,))
    with pytest.raises(UnsupportedLayerError, match="Erf"):
        to_tf_keras(keras.Model(x, ops.erf(x)))
    to_tf_keras(keras.Model(x, ops.tanh(x)))


@pytest.mark.remedy("Install it: pip install 'keras-sbp[tfmot]'")
def test_without_tf_keras(monkeypatch):
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2)(x))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tf_keras", None)
        with pytest.raises(ImportError, match=r"pip install 'keras-sbp\[tfmot\]'"):
            to_tf_keras(model)
    assert brings("tfmot", "tf_keras") and brings("tfmot", "tensorflow-model-optimization")
    to_tf_keras(model)


def test_a_difference_is_an_error(monkeypatch):
    from keras_sbp.integrations import _layers

    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    monkeypatch.setattr(_layers, "copy_weights", lambda layer, twin: None)
    with pytest.raises(RuntimeError, match="differs"):
        to_tf_keras(model)
