"""What is physically left of the layers that belong to no family."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import Input, Model, Sequential, layers

from keras_sbp._keras import LayerScale, StochasticDepth
from keras_sbp.layers import find_gates
from keras_sbp.program import trace
from keras_sbp.program.handler import find_handler
from keras_sbp.pruning import prune
from tests.handlers.pruned import image_network, kinds, pruned
from tests.pruning.oracle import assert_same_function, drop_units, gate, randomise


def test_slopes_are_pruned_on_their_own_axes() -> None:
    image = Input((8, 8, 3))
    x = layers.PReLU(shared_axes=[1, 2], name="channels")(layers.Conv2D(8, 3)(image))
    x = layers.PReLU(name="all")(layers.Conv2D(6, 3)(gate()(x)))
    x = gate(axis=1)(gate()(x))
    small = pruned(Model(image, layers.Dense(3)(layers.Flatten()(x))), [0, 1], [5], [2])
    assert small.get_layer("channels").alpha.shape == (1, 1, 6)
    assert small.get_layer("all").alpha.shape == (4, 4, 5)
    assert "Rescaling" not in kinds(small)


def test_negative_constant_passes_equal_slopes_only() -> None:
    for shared_axes, units in (([1], 6), (None, 8)):
        parts = [layers.Dense(8, name="before"), gate(), layers.BatchNormalization(name="norm")]
        parts += [layers.PReLU(shared_axes=shared_axes), layers.Dense(3, name="after")]
        model = Sequential([Input((6, 5)), *parts, layers.Flatten(), layers.Dense(64)])
        randomise(model, drop=0.0)
        drop_units(find_gates(model)[0], [0, 1])
        model.get_layer("norm").moving_mean.assign(np.ones(8))
        model.get_layer("norm").beta.assign(np.zeros(8))
        small, _ = assert_same_function(model)
        assert small.get_layer("before").units == units


def test_softmax_needs_all_its_units() -> None:
    parts = [layers.Dense(8, name="before"), layers.Softmax(), gate(), layers.Dense(64)]
    small = pruned(Sequential([Input((5,)), *parts]), [1, 2])
    assert small.get_layer("before").units == 8


def test_positions_pass_softmax() -> None:
    features = Input((5,))
    x = layers.RepeatVector(6, name="repeat")(layers.Dense(8)(features))
    x = layers.Softmax(name="softmax")(gate(axis=1)(x))
    small = pruned(Model(features, layers.Dense(64)(layers.Flatten()(x))), [0, 3])
    # Positions that were removed have equal logits, so they are constants other than 0.
    assert small.get_layer("repeat").n == 4
    assert small.get_layer("softmax").output.shape == (None, 4, 8)


def test_embedding_columns() -> None:
    words = Input((7,), dtype="int32")
    x = layers.Dense(4, activation="relu")(gate()(layers.Embedding(9, 8, name="table")(words)))
    small = pruned(Model(words, layers.Dense(64)(layers.Flatten()(x))), [1, 2, 6])
    assert small.get_layer("table").embeddings.shape == (9, 5)
    assert kinds(small) == ["Embedding", "Dense", "Flatten", "Dense"]


def test_embedding_column_of_one_number_is_a_constant() -> None:
    words = Input((7,), dtype="int32")
    table = layers.Embedding(9, 8, name="table")
    x = layers.Dense(4, activation="relu")(table(words))
    model = randomise(Model(words, layers.Dense(64)(layers.Flatten()(x))))
    numbers = keras.ops.convert_to_numpy(table.embeddings).copy()
    numbers[:, [2, 5]] = [0.0, -0.7]
    table.embeddings.assign(numbers)
    small, _ = assert_same_function(model)
    assert small.get_layer("table").output_dim == 6


def test_embedding_stays_whole_only_where_its_mask_is_read() -> None:
    words = Input((7,), dtype="int32")
    x = gate()(layers.Embedding(9, 8, mask_zero=True, name="table")(words))
    unread = Model(words, layers.Dense(64)(layers.Flatten()(layers.Dense(4)(x))))
    assert pruned(unread, [1, 2, 6]).get_layer("table").output_dim == 5
    read = Model(words, layers.Dense(64)(layers.SimpleRNN(4)(x)))
    assert pruned(read, [1, 2, 6]).get_layer("table").output_dim == 8


def test_units_pass_permutation_and_unneeded_repetitions_go() -> None:
    sequence = Input((6, 5))
    x = layers.Permute((2, 1))(layers.Dense(8, activation="relu", name="wide")(sequence))
    x = layers.Dense(4, activation="relu")(layers.Flatten()(gate(axis=1)(x)))
    x = gate(axis=1)(layers.RepeatVector(5, name="repeat")(x))
    small = pruned(Model(sequence, layers.Dense(64)(layers.Flatten()(x))), [0, 1, 7], [2, 4])
    assert small.get_layer("wide").units == 5
    assert small.get_layer("repeat").n == 3
    # The repetitions are multiplied by different numbers, which the last layer takes in.
    assert "Rescaling" not in kinds(small)


@pytest.mark.parametrize(
    ("options", "filters"),
    [
        ({}, 5),
        ({"crop_to_aspect_ratio": True}, 5),
        ({"interpolation": "bicubic"}, 8),
        ({"antialias": True}, 8),
        ({"pad_to_aspect_ratio": True}, 8),
    ],
)
def test_constants_through_resizing(options, filters) -> None:
    before, shift = layers.Conv2D(8, 3, name="before"), layers.Activation("sigmoid")
    resize = layers.Resizing(5, 7, **options)
    small = pruned(image_network(before, gate(), shift, resize), [0, 1, 7])
    assert small.get_layer("before").filters == filters


def test_single_images_and_integers_are_not_resized_by_units() -> None:
    for image in (Input((8, 3)), Input((8, 8, 3), dtype="uint8")):
        layer = layers.Resizing(4, 4, dtype=image.dtype)
        op = trace(Model(image, layer(image))).ops[0]
        assert "batches of images" in find_handler(op)[1]


@pytest.mark.parametrize(("normalize", "units"), [(False, 4), (True, 7)])
def test_zeros_of_either_operand_leave_a_dot_product(normalize, units) -> None:
    features = Input((5,))
    x, y = (layers.Dense(8, activation="relu", name=name)(features) for name in "xy")
    z = layers.Dot(1, normalize=normalize)([gate()(x), gate()(y)])
    small = pruned(Model(features, layers.Dense(64)(z)), [0, 1], [0, 5, 6])
    assert small.get_layer("x").units == small.get_layer("y").units == units


def test_outer_units_pass_a_dot_product_with_their_scales() -> None:
    sequence = Input((6, 5))
    x, y = (layers.Permute((2, 1))(layers.Dense(8)(sequence)) for _ in range(2))
    z = layers.Dot(2, name="dot")([gate(axis=1)(x), gate(axis=1)(y)])
    small = pruned(Model(sequence, layers.Dense(64)(layers.Flatten()(z))), [0, 1], [3])
    assert small.get_layer("dot").output.shape == (None, 6, 7)
    assert "Rescaling" not in kinds(small)


def test_layer_scale_is_pruned_and_takes_scales_in() -> None:
    model = image_network(
        layers.Conv2D(8, 3, activation="gelu", name="before"),
        gate(),
        LayerScale(1.0, 8, name="scale"),
        StochasticDepth(0.1),
        gate(),
    )
    small = pruned(model, [0, 1], [1, 2], scale=[7])
    assert small.get_layer("scale").gamma.shape == (4,)
    assert small.get_layer("before").filters == 4
    assert kinds(small) == ["Conv2D", "LayerScale", "StochasticDepth", "Flatten", "Dense"]


def test_layer_scale_that_repeats_channels_is_opaque() -> None:
    features = Input((1,))
    op = trace(Model(features, LayerScale(1.0, 8)(features))).ops[0]
    assert "repeats" in find_handler(op)[1]


@pytest.mark.kernel("channels_first", "channels_first_transposed")
def test_channels_first() -> None:
    image, first = Input((3, 8, 8)), {"data_format": "channels_first"}
    x = layers.Conv2D(8, 3, activation="relu", name="conv", **first)(image)
    x = layers.Conv2D(12, 3, groups=4, activation="relu", name="grouped", **first)(gate(axis=1)(x))
    x = layers.Conv2DTranspose(6, 3, strides=2, name="transposed", **first)(gate(axis=1)(x))
    x = layers.GroupNormalization(3, axis=1, name="norm")(gate(axis=1)(x))
    x = layers.PReLU(shared_axes=[2, 3], name="slopes")(x)
    x = layers.Flatten(**first)(layers.Resizing(3, 4, **first)(x))
    model = Model(image, layers.Dense(3)(x))
    randomise(model, drop=0.0)
    for each, units in zip(find_gates(model), ([0, 2, 4, 6], [0, 3, 6, 9], [0, 1]), strict=True):
        drop_units(each, units)
    small, _ = assert_same_function(model)
    assert small.get_layer("conv").kernel.shape == (3, 3, 3, 4)
    assert small.get_layer("grouped").kernel.shape == (3, 3, 1, 8)
    assert small.get_layer("transposed").kernel.shape == (3, 3, 4, 8)
    assert small.get_layer("norm").groups == 2
    assert small.get_layer("slopes").alpha.shape == (4, 1, 1)


def test_half_precision() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    image = Input((8, 8, 3))
    x = gate()(layers.Conv2D(8, 3, groups=1, activation="relu")(image))
    x = gate()(layers.Conv2D(8, 3, groups=4, padding="same", activation="relu")(x))
    x = layers.GroupNormalization(2, epsilon=0.1)(layers.LayerNormalization(epsilon=0.1)(x))
    x = layers.PReLU(shared_axes=[1, 2])(LayerScale(1.0, 8)(gate()(x)))
    x = layers.RMSNormalization(epsilon=0.1)(gate()(layers.Conv2DTranspose(6, 3)(x)))
    model = randomise(Model(image, layers.Dense(3)(layers.Flatten()(x))), drop=0.0)
    for each in find_gates(model):
        drop_units(each, [0, 1])
    small, report = prune(model)
    assert small.outputs[0].dtype == model.outputs[0].dtype == "float16"
    assert report.macs_after < report.macs_before


def test_convnext_layers_save_and_load(tmp_path) -> None:
    model = image_network(
        layers.Conv2D(8, 3), LayerScale(1.0, 8), StochasticDepth(0.1), gate(), layers.ReLU()
    )
    small = pruned(model, [0, 1])
    small.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), small.predict(x, verbose=0))
