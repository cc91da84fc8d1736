"""What is physically left of grouped convolution."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import Input, Model, layers

from keras_sbp.layers import find_gates
from keras_sbp.program import trace
from keras_sbp.program.handler import find_handler
from tests.handlers.pruned import image_network, kinds, pruned
from tests.pruning.oracle import assert_same_function, drop_units, gate, randomise


def grouped(**options) -> layers.Conv2D:
    return layers.Conv2D(12, 3, groups=4, activation="relu", name="grouped", **options)


def before_grouped() -> list[layers.Layer]:
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


def test_channels_that_fill_up_a_group_are_computed_from_all_they_read() -> None:
    image = Input((8, 8, 3))
    layer = grouped()
    x = gate()(layer(layers.Conv2D(16, 1, activation="relu", name="before")(image)))
    model = randomise(Model(image, layers.Dense(3)(layers.Flatten()(x))), drop=0.0)
    drop_units(find_gates(model)[0], [1])  # other groups are full, so this one fills up with it
    kernel = keras.ops.convert_to_numpy(layer.kernel).copy()
    kernel[:, :, 0, np.arange(12) != 1] = 0.0  # nothing else reads the first inputs
    layer.kernel.assign(kernel)
    small, _ = assert_same_function(model)
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
