"""What does not depend on the input is not computed: it is in weights, or one constant."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import Input, Model, layers

import keras_sbp
from keras_sbp.evidence.network import ProgramNetwork
from keras_sbp.program import trace
from keras_sbp.pruning.report import LayerReport, PruneReport
from tests.pruning.oracle import assert_same_function, gate, randomise

PRECISIONS = ["float32", "float64"] if keras.backend.backend() == "tensorflow" else ["float32"]


@pytest.fixture(autouse=True)
def _policy():
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


def dead(x, **options):
    """A convolution whose gate keeps nothing."""
    return gate(name="dead")(layers.Conv2D(4, 3, padding="same", activation="relu", **options)(x))


def kill(model: Model) -> Model:
    """Random weights; all gates are open but the dead one."""
    randomise(model, drop=0.0)
    units = model.get_layer("dead").units
    model.get_layer("dead").set_posterior([-5.0] * units, [3.0] * units)
    return model


def row(report: PruneReport, name: str) -> LayerReport:
    return next(each for each in report.layers if each.name == name)


def conv(x, name, padding="same", **options):
    return layers.Conv2D(6, 3, padding=padding, name=name, **options)(x)


def unet() -> Model:
    """Its bottom sees nothing of the image."""
    image = Input((8, 8, 3))
    skip = layers.Conv2D(5, 3, padding="same", activation="relu")(image)
    x = dead(layers.MaxPooling2D()(skip))
    x = conv(conv(x, "bottom_1", activation="relu"), "bottom_2", activation="relu")
    x = layers.Conv2DTranspose(4, 2, strides=2, name="up")(x)
    x = layers.Concatenate()([skip, x])
    return Model(image, layers.Conv2D(2, 3, padding="same")(x))


def added() -> Model:
    image = Input((8, 8, 3))
    skip = layers.Conv2D(6, 3, padding="same")(image)
    x = conv(dead(image), "bottom_1", activation="relu")
    x = layers.BatchNormalization()(conv(x, "bottom_2"))
    return Model(image, layers.Conv2D(2, 3)(layers.Add()([skip, x])))


def multiplied() -> Model:
    image = Input((8, 8, 3))
    skip = layers.Conv2D(6, 3, padding="same")(image)
    x = conv(conv(dead(image), "bottom_1"), "bottom_2", activation="sigmoid")
    return Model(image, layers.Conv2D(2, 3)(layers.Multiply()([skip, x])))


def strided() -> Model:
    image = Input((8, 8, 3))
    skip = layers.Conv2D(6, 3, strides=2, padding="same")(image)
    x = conv(conv(dead(image), "bottom_1"), "bottom_2", strides=2)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    return Model(image, layers.Dense(3)(layers.Flatten()(layers.Concatenate()([skip, y, x]))))


def sequence() -> Model:
    steps = Input((10, 3))
    skip = layers.Conv1D(6, 3, padding="same")(steps)
    x = gate(name="dead")(layers.Conv1D(4, 3, padding="same")(steps))
    x = layers.Conv1D(6, 3, padding="causal", name="bottom_1")(x)
    x = layers.Conv1D(6, 3, padding="causal", name="bottom_2")(x)
    y = layers.MultiHeadAttention(2, 3)(skip, x)
    return Model(steps, layers.Dense(3)(layers.Add()([skip, y])))


def valid() -> Model:
    """The constants are numbers per channel: nothing is to be stored."""
    image = Input((8, 8, 3))
    skip = layers.Conv2D(6, 5, padding="valid")(image)
    x = dead(image)
    x = conv(conv(x, "bottom_1", padding="valid"), "bottom_2", padding="valid")
    return Model(image, layers.Conv2D(2, 3)(layers.Concatenate()([skip, x])))


BUILD = {f.__name__: f for f in (unet, added, multiplied, strided, sequence, valid)}
STORED = {"unet": 1, "added": 1, "multiplied": 1, "strided": 2, "sequence": 2, "valid": 0}


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", BUILD)
def test_branch_with_a_dead_input_is_not_computed(name: str, dtype: str) -> None:
    keras.config.set_dtype_policy(dtype)
    model = kill(BUILD[name]())
    small, report = assert_same_function(model)
    for bottom in ("bottom_1", "bottom_2"):
        gone = row(report, bottom)
        assert (gone.units_after, gone.params_after, gone.macs_after) == (0, 0, 0)
        assert gone.reason == "removed: what it computes is constant"
    stored = [each for each in report.layers if each.reason.startswith("added: the constant")]
    assert len(stored) == STORED[name]
    assert sum(each.params_after for each in report.layers) == small.count_params()
    assert not any("kept for" in each.reason for each in report.layers)


def test_stored_constant_is_written_to_files(tmp_path) -> None:
    model = kill(unet())
    small, _ = keras_sbp.prune(model)
    small.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(loaded.predict(x), small.predict(x))
    x[0] = np.nan
    np.testing.assert_allclose(small.predict(x)[1], model.predict(x)[1], rtol=1e-5, atol=1e-5)


@pytest.mark.tensorflow
@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_stored_constant_is_exported(suffix: str, tmp_path) -> None:
    small, _ = keras_sbp.prune(kill(unet()))
    keras_sbp.export(small, tmp_path / f"small{suffix}")  # compares


def test_constant_of_unknown_size_is_computed_and_says_so() -> None:
    image = Input((None, None, 3))
    skip = layers.Conv2D(6, 3, padding="same")(image)
    x = conv(conv(dead(image), "bottom_1", activation="relu"), "bottom_2")
    model = kill(Model(image, layers.Conv2D(2, 3)(layers.Concatenate()([skip, x]))))
    _, report = assert_same_function(model)
    assert row(report, "bottom_2").reason == (
        "computes a constant that is not stored: sizes are unknown"
    )
    assert row(report, "bottom_2").macs_after > 0


def test_budgets_count_as_pruning_does() -> None:
    model = kill(added())
    network = ProgramNetwork(trace(model))
    keep = {group: network.gate_of(group).keep() for group in network.groups}
    _, report = keras_sbp.prune(model)
    assert network.remaining("macs", keep) == report.macs_after / report.macs_before
