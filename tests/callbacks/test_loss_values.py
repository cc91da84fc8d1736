"""A loss that averages over positions: the KL is divided by their number, too."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_sbp.callbacks import SNRMonitor
from keras_sbp.callbacks.loss_values import LossValues, loss_values
from keras_sbp.layers import SBPLayer

N, H, W, T, CLASSES = 12, 8, 4, 5, 3
RNG = np.random.default_rng(0)
LOSSES = keras.losses

pytestmark = pytest.mark.usefixtures("optimizers_built_first")


def segmenter(size=(H, W)):
    """A U-Net of one level."""
    image = keras.Input((*size, 2))
    fine = SBPLayer(name="gate")(layers.Conv2D(4, 3, padding="same", activation="relu")(image))
    coarse = layers.Conv2D(4, 3, padding="same", activation="relu")(layers.MaxPooling2D()(fine))
    x = layers.Concatenate()([layers.UpSampling2D()(SBPLayer()(coarse)), fine])
    return keras.Model(image, layers.Conv2D(CLASSES, 1, activation="softmax")(x))


def tagger(length=T):
    words = keras.Input((length,), dtype="int32")
    x = SBPLayer(name="gate")(layers.LSTM(4, return_sequences=True)(layers.Embedding(9, 4)(words)))
    return keras.Model(words, layers.Dense(CLASSES, activation="softmax")(x))


def classifier(outputs=CLASSES, activation="softmax"):
    x = keras.Input((6,))
    return keras.Model(x, layers.Dense(outputs, activation)(SBPLayer(name="gate")(x)))


IMAGES = RNG.uniform(size=(N, H, W, 2)).astype("float32")
PIXELS = RNG.integers(0, CLASSES, (N, H, W))
WORDS = RNG.integers(0, 9, (N, T))
TAGS = RNG.integers(0, CLASSES, (N, T))
ROWS = RNG.uniform(size=(N, 6)).astype("float32")


def one_hot(numbers):
    return np.eye(CLASSES, dtype="float32")[numbers]


def fit(model, x, y, loss, callback=None, **options):
    """Trains for two steps, and returns what was said of the loss."""
    model.compile("adam", loss, jit_compile=keras.backend.backend() == "jax", **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        model.fit(x, y, batch_size=6, epochs=1, verbose=0, callbacks=[callback or SNRMonitor()])
    return [str(w.message) for w in caught if "loss averages over" in str(w.message)]


def divisor(model):
    gate = model.get_layer("gate")
    return gate.kl() / gate.kl_loss()


@pytest.mark.parametrize(
    ("make", "loss", "positions", "sums_batch"),
    [
        (segmenter, "sparse_categorical_crossentropy", H * W, False),
        (segmenter, "sparse_categorical_crossentropy", H * W, False),
        (segmenter, LOSSES.BinaryCrossentropy(), H * W, False),
        (segmenter, "mse", H * W, False),
        (segmenter, LOSSES.Dice(), H * W, False),
        (segmenter, lambda y, p: ops.mean((y - p) ** 2), H * W, False),
        (segmenter, lambda y, p: ops.sum((y - p) ** 2, (1, 2, 3)), 1, False),
        (segmenter, LOSSES.SparseCategoricalCrossentropy(reduction="sum"), 1, True),
        (tagger, "sparse_categorical_crossentropy", T, False),
        (tagger, LOSSES.CategoricalCrossentropy(), T, False),
        (classifier, "sparse_categorical_crossentropy", 1, False),
        (classifier, "categorical_crossentropy", 1, False),
        (classifier, "mse", 1, False),
        (classifier, LOSSES.MeanSquaredError(reduction="sum"), 1, True),
        (lambda: classifier(1, None), "huber", 1, False),
        (lambda: classifier(1, "sigmoid"), "binary_crossentropy", 1, False),
    ],
)
def test_what_losses_average_over_and_sum_up(make, loss, positions, sums_batch):
    model = make()
    model.compile("adam", loss)
    assert loss_values(model) == LossValues(positions, sums_batch)


@pytest.mark.parametrize(
    ("make", "x", "y", "loss", "expected"),
    [
        (segmenter, IMAGES, PIXELS, "sparse_categorical_crossentropy", N * H * W),
        (tagger, WORDS, TAGS, "sparse_categorical_crossentropy", N * T),
        (classifier, ROWS, one_hot(TAGS[:, 0]), LOSSES.MeanSquaredError(reduction="sum"), N / 6),
        (classifier, ROWS, TAGS[:, 0], "sparse_categorical_crossentropy", N),
    ],
)
def test_the_kl_is_divided_by_what_the_loss_averages_over(make, x, y, loss, expected):
    model = make()
    assert fit(model, x, y, loss) == []
    assert divisor(model) == pytest.approx(expected, rel=1e-4)


def test_the_gradients_are_in_the_ratio_of_the_evidence_lower_bound():
    """That of the sum of all losses of the data to the KL, exactly."""
    model = segmenter()
    fit(model, IMAGES, PIXELS, "sparse_categorical_crossentropy")
    gate = model.get_layer("gate")
    values = keras.losses.sparse_categorical_crossentropy(PIXELS, model(IMAGES))
    total = float(ops.sum(values)) + gate.kl()
    mean = float(ops.mean(values)) + gate.kl_loss()
    assert mean == pytest.approx(total / PIXELS.size, rel=1e-5)


def test_an_explicit_num_samples_is_that_number():
    model = segmenter()
    model.get_layer("gate").num_samples = 100
    fit(model, IMAGES, PIXELS, "sparse_categorical_crossentropy")
    assert divisor(model) == pytest.approx(100)


def test_what_was_known_of_a_loss_holds_for_its_own_fit():
    model = segmenter()
    monitor = SNRMonitor()
    fit(model, IMAGES, one_hot(PIXELS), "mse", monitor)
    fit(model, IMAGES, one_hot(PIXELS), LOSSES.MeanSquaredError(reduction="sum"), monitor)
    assert divisor(model) == pytest.approx(N / 6)


def two_outputs():
    model = segmenter()
    pooled = layers.Dense(CLASSES, "softmax", name="label")(
        layers.GlobalAveragePooling2D()(model.get_layer("gate").output)
    )
    return keras.Model(model.input, {"mask": model.output, "label": pooled})


def test_outputs_that_differ_are_named_and_num_samples_is_a_way_out():
    y = {"mask": PIXELS, "label": TAGS[:, 0]}
    loss = dict.fromkeys(y, "sparse_categorical_crossentropy")
    model = two_outputs()
    (message,) = fit(model, IMAGES, y, loss)
    assert "different numbers" in message and "num_samples" in message
    assert divisor(model) == pytest.approx(N * H * W)
    model = two_outputs()
    for layer in model.layers:
        if isinstance(layer, SBPLayer):
            layer.num_samples = N * H * W
    assert fit(model, IMAGES, y, loss) == []
    model = two_outputs()
    assert fit(model, IMAGES, y, loss, loss_weights={"mask": 1.0, "label": 0.0}) == []


@pytest.mark.parametrize(
    ("make", "loss"),
    [
        (lambda: tagger(None), "sparse_categorical_crossentropy"),
        (lambda: segmenter((None, None)), "mse"),
        (segmenter, lambda y, p: ops.sqrt(ops.sum((y - p) ** 2))),
    ],
)
def test_what_cannot_be_known_is_doubted(make, loss):
    model = make()
    model.compile("adam", loss)
    assert loss_values(model).doubt


class Noisy(LOSSES.Loss):
    """A loss with state."""

    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, y, p):
        noise = keras.random.uniform((), 0.9999, 1.0001, seed=self.seeds)
        return ops.mean((y - p) ** 2, -1) * noise


def test_trying_a_loss_leaves_its_state_alone():
    model, loss = segmenter(), Noisy()
    model.compile("adam", loss)
    before = ops.convert_to_numpy(loss.seeds.state)
    assert loss_values(model) == LossValues(H * W)
    np.testing.assert_array_equal(ops.convert_to_numpy(loss.seeds.state), before)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.gate = SBPLayer(name="gate")
        self.head = layers.Conv2D(CLASSES, 1, activation="softmax")

    def call(self, x, training=False):
        return self.head(self.gate(x, training=training))


def test_a_subclassed_model_that_was_called_knows_its_outputs():
    model = Subclassed()
    model(IMAGES[:1])
    assert fit(model, IMAGES, PIXELS, "sparse_categorical_crossentropy") == []
    assert model.gate.kl() / model.gate.kl_loss() == pytest.approx(N * H * W)


@pytest.mark.tensorflow
def test_a_subclassed_model_that_was_not_is_told_to_be_called():
    (message,) = fit(Subclassed(), IMAGES, PIXELS, "sparse_categorical_crossentropy")
    assert "call it on a batch before" in message
