"""What is physically left of grouped and transposed convolution, norms and their like."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import Input, Model, Sequential, layers

from keras_sbp.graph import find_gates, macs, trace
from keras_sbp.graph.handler import find_handler
from keras_sbp.graph.keras_internals import LayerScale, StochasticDepth
from keras_sbp.pruning import prune
from tests.pruning.oracle import assert_same_function, drop_units, gate, randomise


def pruned(model: keras.Model, *drops: list[int], **dead_weights: list[int]) -> keras.Model:
    """Prunes after each gate dropped its units; `dead_weights` names gammas that are 0."""
    randomise(model, drop=0.0)
    for each, units in zip(find_gates(model), drops, strict=True):
        drop_units(each, units)
    for name, units in dead_weights.items():
        gamma = keras.ops.convert_to_numpy(model.get_layer(name).gamma).copy()
        gamma[units] = 0.0
        model.get_layer(name).gamma.assign(gamma)
    return assert_same_function(model)[0]


def image_network(*parts: keras.layers.Layer) -> keras.Model:
    return Sequential([Input((8, 8, 3)), *parts, layers.Flatten(), layers.Dense(3)])


def kinds(model: keras.Model) -> list[str]:
    return [type(operation).__name__ for operation in model.operations[1:]]


# Grouped convolution


def grouped(**options) -> layers.Conv2D:
    return layers.Conv2D(12, 3, groups=4, activation="relu", name="grouped", **options)


def before_grouped() -> list[keras.layers.Layer]:
    return [layers.Conv2D(16, 1, activation="relu", name="before"), gate()]


@pytest.mark.parametrize(
    ("dropped", "kernel", "groups"),
    [
        ([0, 4, 8, 12], (3, 3, 3, 12), 4),  # one input of every group
        ([0, 4, 5, 8], (3, 3, 4, 12), 4),  # the last group is full, and so the others stay
        ([0, 1, 2, 3], (3, 3, 4, 9), 3),  # a whole group
        ([0, 1, 2, 3, 4, 8, 12, 13], (3, 3, 3, 9), 3),  # a whole group, and some of each other
        (list(range(12)), (3, 3, 4, 3), 1),  # all but one group
        (list(range(15)), (3, 3, 1, 3), 1),  # all but one unit
    ],
)
def test_inputs_of_groups(dropped, kernel, groups) -> None:
    small = pruned(image_network(*before_grouped(), grouped()), dropped)
    layer = small.get_layer("grouped")
    assert layer.kernel.shape == kernel
    assert layer.groups == groups
    assert small.get_layer("before").filters == kernel[-2] * groups
    assert kinds(small) == ["Conv2D", "Conv2D", "Flatten", "Dense"]


@pytest.mark.parametrize(
    ("dropped", "kernel", "groups"),
    [
        ([0, 3, 6, 9], (3, 3, 4, 8), 4),
        ([0, 3, 4, 6], (3, 3, 4, 12), 4),
        ([0, 1, 2], (3, 3, 4, 9), 3),
        (list(range(11)), (3, 3, 4, 1), 1),
    ],
)
def test_outputs_of_groups(dropped, kernel, groups) -> None:
    small = pruned(image_network(*before_grouped(), grouped(), gate()), [], dropped)
    layer = small.get_layer("grouped")
    assert layer.kernel.shape == kernel
    assert layer.groups == groups
    assert small.get_layer("before").filters == 4 * groups
    assert set(kinds(small)) <= {"Conv2D", "Flatten", "Dense", "Take"}


def test_channels_that_fill_up_a_group_have_their_true_values() -> None:
    """Others may read them, so their inputs must be there."""
    image = Input((8, 8, 3))
    x = grouped()(gate()(layers.Conv2D(16, 1, activation="relu")(image)))
    first, rest = gate()(x), layers.Conv2D(5, 1)(x)
    model = Model(image, layers.Dense(3)(layers.Flatten()(layers.Concatenate()([first, rest]))))
    small = pruned(model, [3, 7, 8, 9], [1, 2, 4])
    assert small.get_layer("grouped").kernel.shape == (3, 3, 4, 12)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_constants_go_into_the_bias_of_groups_without_padding(padding) -> None:
    shift = layers.Activation("sigmoid")
    layer = grouped(use_bias=False, padding=padding)
    small = pruned(image_network(*before_grouped(), shift, layer), [0, 1, 2, 3, 5, 9, 13])
    layer = small.get_layer("grouped")
    assert layer.use_bias == (padding == "valid")
    assert layer.kernel.shape[-2] == (3 if padding == "valid" else 4)


@pytest.mark.parametrize(
    ("dropped", "kernel", "copies"),
    [
        ([0, 5, 10, 15], (3, 3, 4, 12), 0),  # the groups are alike, and a copy would cost more
        ([0, 5], (3, 3, 4, 12), 0),
        ([0, 1, 2, 3, 5], (3, 3, 4, 9), 1),  # a whole group must be left behind
    ],
)
def test_units_of_other_readers(dropped, kernel, copies) -> None:
    image = Input((8, 8, 3))
    x = layers.Conv2D(16, 1, activation="relu", name="before")(image)
    y, z = grouped(padding="same")(gate()(x)), layers.Conv2D(5, 3, padding="same")(x)
    model = Model(image, layers.Dense(3)(layers.Flatten()(layers.Concatenate()([y, z]))))
    small = pruned(model, dropped)
    assert small.get_layer("before").filters == 16
    assert small.get_layer("grouped").kernel.shape == kernel
    assert kinds(small).count("Take") == copies


def test_shared_groups_go_whole_or_not_at_all() -> None:
    image, layer, gates = Input((8, 8, 3)), grouped(), [gate(), gate()]
    towers = [layer(g(layers.Conv2D(16, 1, activation="relu")(image))) for g in gates]
    model = Model(image, layers.Dense(3)(layers.Flatten()(layers.Concatenate()(towers))))
    small = pruned(model, [0, 1, 2, 3, 4], [0, 1, 2, 3, 8])
    # Its bias makes the outputs of the first group constants other than 0; they are absorbed.
    assert small.get_layer("grouped").kernel.shape == (3, 3, 4, 9)


def test_group_of_one_channel_is_a_depthwise_convolution() -> None:
    depthwise = layers.Conv2D(8, 3, padding="same", groups=8, name="depthwise")
    small = pruned(image_network(layers.Conv2D(8, 1), depthwise, gate()), [1, 2, 6])
    assert small.get_layer("depthwise").kernel.shape == (3, 3, 1, 5)
    assert small.get_layer("depthwise").groups == 5
    assert kinds(small) == ["Conv2D", "Conv2D", "Flatten", "Dense"]


def test_grouped_convolution_whose_activation_mixes_is_opaque() -> None:
    model = image_network(layers.Conv2D(12, 3, groups=3, activation="softmax"))
    assert "activation" in find_handler(trace(model).ops[0])[1]


# Transposed, depthwise and separable convolution


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_transposed_convolution(rank) -> None:
    convolution = getattr(layers, f"Conv{rank}D")
    transposed = getattr(layers, f"Conv{rank}DTranspose")
    model = Sequential(
        [
            Input((4,) * rank + (3,)),
            convolution(8, 1, activation="relu"),
            gate(),
            transposed(6, 3, strides=2, output_padding=1, use_bias=False, name="transposed"),
            gate(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    small = pruned(model, [0, 1, 5], [2, 3])
    assert small.get_layer("transposed").kernel.shape == (3,) * rank + (4, 5)
    assert kinds(small) == [convolution.__name__, transposed.__name__, "Flatten", "Dense"]


@pytest.mark.parametrize(("kernel", "strides", "inputs"), [(1, 1, 5), (1, 2, 8), (2, 2, 8)])
def test_transposed_convolution_absorbs_constants_only_as_a_matrix(kernel, strides, inputs) -> None:
    transposed = layers.Conv2DTranspose(6, kernel, strides=strides, name="transposed")
    shift = layers.Activation("softplus")
    small = pruned(image_network(layers.Conv2D(8, 3), gate(), shift, transposed), [0, 1, 5])
    assert small.get_layer("transposed").kernel.shape == (kernel, kernel, 6, inputs)


def test_dilated_transposed_convolution() -> None:
    # TensorFlow's CPU kernels know it in float32 only, so it is not in the zoo.
    transposed = layers.Conv2DTranspose(6, 3, dilation_rate=2, padding="same", name="transposed")
    model = image_network(layers.Conv2D(8, 3, activation="relu"), gate(), transposed, gate())
    small = pruned(model, [0, 1, 5], [2, 3])
    assert small.get_layer("transposed").kernel.shape == (3, 3, 4, 5)


def test_one_dimensional_depthwise_and_separable_convolution() -> None:
    model = Sequential(
        [
            Input((20, 3)),
            layers.Conv1D(8, 3),
            layers.DepthwiseConv1D(3, depth_multiplier=2, activation="relu", name="depthwise"),
            gate(),
            layers.SeparableConv1D(6, 3, depth_multiplier=2, name="separable"),
            gate(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    small = pruned(model, [0, 1, 2, 7], [0, 5])
    assert small.get_layer("depthwise").kernel.shape == (3, 7, 2)
    assert small.get_layer("separable").depthwise_kernel.shape in [(3, 12, 2), (3, 14, 2)]
    assert small.get_layer("separable").pointwise_kernel.shape[-1] == 4


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (layers.Conv2D(12, 3, groups=4), (8, 8, 8), 6 * 6 * 9 * 2 * 12),
        (layers.Conv2D(12, 3, groups=4, data_format="channels_first"), (8, 7, 6), 5 * 4 * 9 * 24),
        (layers.Conv1DTranspose(5, 3, strides=2), (6, 4), 6 * 3 * 4 * 5),
        (layers.Conv2DTranspose(5, 3, strides=2), (6, 7, 4), 6 * 7 * 9 * 4 * 5),
        (
            layers.Conv2DTranspose(5, 3, strides=2, data_format="channels_first"),
            (4, 6, 7),
            6 * 7 * 9 * 4 * 5,
        ),
        (layers.Conv3DTranspose(5, 2), (2, 3, 4, 6), 2 * 3 * 4 * 8 * 6 * 5),
        (layers.DepthwiseConv1D(3, depth_multiplier=2), (8, 4), 6 * 3 * 4 * 2),
        (layers.SeparableConv1D(5, 3, depth_multiplier=2), (8, 4), 6 * (3 * 8 + 8 * 5)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_macs(layer, shape, expected) -> None:
    features = Input(shape)
    assert macs(trace(Model(features, layer(features))).ops[0]) == expected


# Normalisation


def test_gate_behind_layer_normalisation_leaves_nothing() -> None:
    model = Sequential(
        [
            Input((6, 5)),
            layers.Dense(8, name="before"),
            layers.LayerNormalization(),
            gate(),
            layers.Dense(4, activation="relu"),
            layers.Dense(64),
        ]
    )
    small = pruned(model, [0, 3])
    assert kinds(small) == ["Dense", "LayerNormalization", "Dense", "Dense"]
    assert small.get_layer("before").units == 8


def test_positions_pass_layer_normalisation() -> None:
    features = Input((5,))
    x = layers.RepeatVector(6)(layers.Dense(8)(features))
    x = gate(axis=1)(layers.LayerNormalization(center=False, name="norm")(x))
    small = pruned(Model(features, layers.Dense(3)(layers.Flatten()(x))), [1, 2])
    assert small.get_layer("norm").output.shape == (None, 4, 8)


def test_channel_without_gamma_is_a_constant() -> None:
    model = image_network(
        layers.Conv2D(8, 3),
        layers.LayerNormalization(name="layer"),
        layers.Conv2D(8, 3, name="between"),
        layers.GroupNormalization(4, name="group"),
        layers.Conv2D(5, 3, name="after"),
    )
    small = pruned(model, layer=[0, 1, 2], group=[0, 1, 2])
    assert small.get_layer("between").kernel.shape[-2] in (5, 8)  # 8 where no copy pays
    assert small.get_layer("group").groups == 3
    assert small.get_layer("after").kernel.shape[-2] in (5, 6)


def test_whole_groups_of_a_normalisation_go() -> None:
    norm = layers.GroupNormalization(4, name="norm")
    model = image_network(layers.Conv2D(12, 3, name="before"), gate(), norm, gate())
    small = pruned(model, [0, 1, 2, 3], [6, 7, 8, 9])
    assert small.get_layer("norm").groups == 2
    assert small.get_layer("norm").gamma.shape == (6,)
    assert small.get_layer("before").filters == 6


def test_channels_normalised_alone_go_one_by_one() -> None:
    norm = layers.GroupNormalization(-1, name="norm")
    model = image_network(layers.Conv2D(12, 3, name="before"), norm, layers.ReLU(), gate())
    small = pruned(model, [0, 1, 5])
    assert small.get_layer("norm").groups == small.get_layer("before").filters == 9
    assert kinds(small) == ["Conv2D", "GroupNormalization", "ReLU", "Flatten", "Dense"]


def test_norm_of_fewer_squares_has_another_epsilon_and_scale() -> None:
    model = Sequential(
        [
            Input((6, 5)),
            layers.Dense(8, activation="relu"),
            gate(),
            layers.RMSNormalization(epsilon=0.1, name="norm"),
            layers.Dense(64),
        ]
    )
    small = pruned(model, [0, 3])
    assert small.get_layer("norm").epsilon == pytest.approx(0.1 * 8 / 6)
    old, new = model.get_layer("norm").scale, small.get_layer("norm").scale
    np.testing.assert_allclose(new, np.delete(old, [0, 3]) * np.sqrt(8 / 6), rtol=1e-6)


def test_constants_other_than_zero_stay_for_a_norm_of_squares() -> None:
    for norm in (layers.RMSNormalization(), layers.UnitNormalization()):
        shift = layers.Activation("sigmoid")
        parts = [layers.Dense(8, name="before"), gate(), shift, norm, layers.Dense(64)]
        small = pruned(Sequential([Input((5,)), *parts]), [0, 3])
        assert small.get_layer("before").units == 8


@pytest.mark.parametrize(
    ("norm", "reason"),
    [
        (lambda: layers.RMSNormalization(axis=1), "last axes"),
        (lambda: layers.RMSNormalization(axis=[-1, 1]), "last axes"),
        (lambda: layers.LayerNormalization(axis=[0, 1]), "batch"),
        (lambda: layers.UnitNormalization(axis=0), "batch"),
    ],
)
def test_unusual_axes_are_opaque(norm, reason) -> None:
    sequence = Input((5, 5), batch_size=4)
    assert reason in find_handler(trace(Model(sequence, norm()(sequence))).ops[0])[1]


def test_layers_with_a_mask_of_their_own_are_opaque() -> None:
    x, mask = Input((6, 5)), Input((6, 5), dtype="bool")
    steps = Input((6,), dtype="bool")
    model = Model(
        [x, mask, steps],
        [layers.Softmax()(x, mask=mask), layers.BatchNormalization()(x, mask=steps)],
    )
    assert {find_handler(op)[1] for op in trace(model).ops} == {"it is called with a mask"}
    prune(model)


# Layers that stand alone


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


def test_embedding_with_a_mask_stays_whole() -> None:
    words = Input((7,), dtype="int32")
    x = layers.Dense(4)(gate()(layers.Embedding(9, 8, mask_zero=True, name="table")(words)))
    model = Model(words, layers.Dense(64)(layers.Flatten()(x)))
    assert pruned(model, [1, 2, 6]).get_layer("table").output_dim == 8


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


# All of them


def test_channels_first() -> None:
    # TensorFlow's CPU kernels know channels_last only; the structure can still be compared.
    verify = keras.backend.backend() != "tensorflow"
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
    small, _ = prune(model, verify=verify)
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
