"""Where insert_sbp puts gates, and that the units that they remove go."""

from __future__ import annotations

import keras
import pytest
from keras import Input, Model, layers, ops

import keras_sbp
from keras_sbp.layers import SBPLayer
from tests.insertion.gate_map import gate_map, units_after_half

IMAGE = (8, 8, 3)


def image() -> keras.KerasTensor:
    return Input(IMAGE, name="image")


def conv(x, filters, name, kernel=3, **options):
    """Convolution and BatchNormalization."""
    x = layers.Conv2D(filters, kernel, padding="same", name=name, **options)(x)
    return layers.BatchNormalization(name=f"{name}_bn")(x)


def relu(x, name):
    return layers.ReLU(name=name)(x)


def head(inputs, x) -> Model:
    if len(x.shape) > 2:
        x = layers.Flatten(name="flatten")(x)
    return Model(inputs, layers.Dense(5, name="head")(x))


def check(model: Model, gates: dict[str, list[str]], units: dict[str, int], **options) -> None:
    gated = keras_sbp.insert_sbp(model, **options)
    assert gate_map(gated) == gates
    assert units_after_half(gated) == units


def test_behind_the_last_unit_wise_op_and_before_the_pooling() -> None:
    inputs = image()
    x = relu(conv(inputs, 8, "conv"), "relu")
    x = layers.Dropout(0.1, name="drop")(x)
    x = layers.MaxPooling2D(name="pool")(x)
    check(head(inputs, x), {"conv_gate": ["drop"]}, {"conv": 4, "conv_bn": 4})


def test_placement_layer() -> None:
    inputs = image()
    x = relu(conv(inputs, 8, "conv"), "relu")
    gated = keras_sbp.insert_sbp(head(inputs, x), placement="layer")
    assert gate_map(gated) == {"conv_gate": ["conv"]}


def test_sequential() -> None:
    model = keras.Sequential(
        [Input((6,)), layers.Dense(8, "relu", name="a"), layers.Dense(4, name="b"), layers.Dense(2)]
    )
    check(model, {"a_gate": ["a"], "b_gate": ["b"]}, {"a": 4, "b": 2})


def test_image_of_one_colour() -> None:
    """Every filter reads the one channel that there is; still each can go alone."""
    inputs = Input((8, 8, 1))
    x = layers.Conv2D(4, 3, name="first")(inputs)
    x = layers.Conv2D(6, 3, name="second")(layers.MaxPooling2D(name="pool")(x))
    check(
        head(inputs, x),
        {"first_gate": ["first"], "second_gate": ["second"]},
        {"first": 2, "second": 3},
    )


def test_one_gate_for_expand_depthwise_project() -> None:
    inputs = image()
    x = relu(conv(inputs, 8, "expand", kernel=1), "expand_relu")
    x = layers.ZeroPadding2D(name="pad")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = relu(layers.BatchNormalization(name="depthwise_bn")(x), "depthwise_relu")
    x = conv(x, 6, "project", kernel=1)
    check(
        head(inputs, x),
        {"expand_gate": ["depthwise_relu"], "project_gate": ["project_bn"]},
        {"expand": 4, "expand_bn": 4, "depthwise": 4, "depthwise_bn": 4}
        | {"project": 3, "project_bn": 3},
    )


def test_depthwise_with_a_multiplier_has_its_gate_in_front() -> None:
    inputs = image()
    x = relu(conv(inputs, 8, "expand", kernel=1), "relu")
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="depthwise")(x)
    x = layers.Conv2D(6, 1, name="project")(x)
    check(
        head(inputs, x),
        {"expand_gate": ["relu"], "project_gate": ["project"]},
        {"expand": 4, "expand_bn": 4, "depthwise": 8, "project": 3},
    )


def test_gates_of_ones_own_in_front_of_and_behind_an_expansion_are_enough() -> None:
    inputs = image()
    x = SBPLayer(name="mine")(layers.Conv2D(8, 1, name="conv")(inputs))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = layers.Conv2D(4, 1, name="last")(x)
    x = SBPLayer(name="features")(layers.Flatten(name="flat")(x))
    model = head(inputs, x)
    assert "features" in gate_map(model)
    with pytest.raises(ValueError, match="'conv': gate 'mine' is there already"):
        keras_sbp.insert_sbp(model)


def test_squeeze_and_excite() -> None:
    inputs = image()
    x = relu(conv(inputs, 8, "conv"), "relu")
    y = layers.GlobalAveragePooling2D(name="squeeze")(x)
    y = layers.Reshape((1, 1, 8), name="reshape")(y)
    y = layers.Conv2D(4, 1, activation="relu", name="reduce")(y)
    y = layers.Conv2D(8, 1, activation="sigmoid", name="excite")(y)
    x = layers.Multiply(name="scale")([x, y])
    check(
        head(inputs, conv(x, 6, "project", kernel=1)),
        {"conv_gate": ["relu"], "reduce_gate": ["reduce"], "project_gate": ["project_bn"]},
        {"conv": 4, "conv_bn": 4, "reduce": 2, "excite": 4, "project": 3, "project_bn": 3},
    )


def test_activation_written_with_operators() -> None:
    inputs = image()
    x = conv(inputs, 8, "conv")
    x = x * ops.relu6(x + 3) / 6
    x = layers.Conv2D(6, 3, padding="same", name="next")(x)
    gated = keras_sbp.insert_sbp(head(inputs, x))
    (before,) = gate_map(gated)["conv_gate"]
    assert before.startswith("true_divide")
    assert units_after_half(gated) == {"conv": 4, "conv_bn": 4, "next": 3}


def test_value_that_branches() -> None:
    inputs = image()
    x = relu(conv(inputs, 8, "stem"), "relu")
    y = layers.Conv2D(4, 3, padding="same", name="left")(x)
    z = layers.MaxPooling2D(3, strides=1, padding="same", name="pool")(x)
    z = layers.Conv2D(4, 1, name="right")(z)
    x = layers.Concatenate(name="join")([y, z])
    check(
        head(inputs, x),
        {"stem_gate": ["relu"], "left_gate": ["left"], "right_gate": ["right"]},
        {"stem": 4, "stem_bn": 4, "left": 2, "right": 2},
    )


def test_one_gate_at_two_places_where_one_place_would_leave_constants_at_borders() -> None:
    inputs = image()
    x = layers.Conv2D(8, 3, name="stem")(inputs)
    y = relu(layers.BatchNormalization(name="bn_a")(x), "relu_a")
    z = relu(layers.BatchNormalization(name="bn_b")(x), "relu_b")
    y = layers.Conv2D(4, 3, padding="same", name="a")(y)
    z = layers.Conv2D(4, 3, padding="same", name="b")(z)
    gated = keras_sbp.insert_sbp(head(inputs, layers.Concatenate()([y, z])))
    assert sorted(gate_map(gated)["stem_gate"]) == ["relu_a", "relu_b"]
    assert units_after_half(gated) == {"stem": 4, "bn_a": 4, "bn_b": 4, "a": 2, "b": 2}


def test_sum_that_is_read_as_a_whole_is_gated_as_a_whole() -> None:
    inputs = image()
    y = conv(inputs, 8, "left")
    z = conv(inputs, 8, "right", kernel=1)
    x = relu(layers.Add(name="add")([y, z]), "relu")
    x = layers.Conv2D(4, 3, padding="same", name="next")(x)
    check(
        head(inputs, x),
        {"right_gate": ["relu"], "next_gate": ["next"]},
        {"left": 4, "left_bn": 4, "right": 4, "right_bn": 4, "next": 2},
    )


def residual(pre_activation: bool) -> Model:
    inputs = image()
    x = layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    x = x if pre_activation else relu(x, "stem_relu")
    for k in (1, 2):
        y = x
        if pre_activation:
            y = relu(layers.BatchNormalization(name=f"pre{k}_bn")(y), f"pre{k}_relu")
        y = relu(conv(y, 6, f"first{k}"), f"relu{k}")
        y = layers.Conv2D(8, 3, padding="same", name=f"second{k}")(y)
        if not pre_activation:
            y = layers.BatchNormalization(name=f"second{k}_bn")(y)
        x = layers.Add(name=f"add{k}")([x, y])
        x = x if pre_activation else relu(x, f"out{k}")
    if pre_activation:
        x = relu(layers.BatchNormalization(name="last_bn")(x), "last_relu")
    return head(inputs, layers.GlobalAveragePooling2D(name="pool")(x))


INNER = {"first1_gate": ["relu1"], "first2_gate": ["relu2"]}
INNER_UNITS = {"first1": 3, "first1_bn": 3, "first2": 3, "first2_bn": 3}


@pytest.mark.parametrize("pre_activation", [False, True])
def test_residual_stream_is_left_alone(pre_activation: bool) -> None:
    check(residual(pre_activation), INNER, INNER_UNITS)


def test_tied_residual_stream_is_gated_where_it_is_written() -> None:
    check(
        residual(False),
        INNER | {"stem_gate": ["stem_relu", "second1_bn", "second2_bn"]},
        INNER_UNITS | {"stem": 4, "second1": 4, "second1_bn": 4, "second2": 4, "second2_bn": 4},
        tie_residual=True,
    )


def test_tied_pre_activation_stream_is_gated_where_it_is_read() -> None:
    # Gated where it is written, a removed unit is a constant behind the normalisation, and the
    # padded convolutions need it.
    check(
        residual(True),
        INNER | {"stem_gate": ["pre1_relu", "pre2_relu", "last_relu"]},
        INNER_UNITS
        | {"stem": 4, "pre1_bn": 4, "second1": 4, "pre2_bn": 4, "second2": 4, "last_bn": 4},
        tie_residual=True,
    )


def test_tied_stream_with_squeeze_and_excite_in_its_branches() -> None:
    inputs = image()
    x = relu(conv(inputs, 8, "stem"), "stem_relu")
    y = conv(x, 8, "branch")
    z = layers.GlobalAveragePooling2D(keepdims=True)(y)
    z = layers.Conv2D(8, 1, activation="sigmoid", name="excite")(z)
    x = layers.Add(name="add")([x, layers.Multiply(name="scale")([y, z])])
    check(
        head(inputs, layers.GlobalAveragePooling2D()(x)),
        {"stem_gate": ["stem_relu", "branch_bn"]},
        {"stem": 4, "stem_bn": 4, "branch": 4, "branch_bn": 4, "excite": 4},
        tie_residual=True,
    )


def test_gates_that_are_there_stay_alone() -> None:
    inputs = image()
    x = relu(conv(inputs, 8, "first"), "relu")
    x = SBPLayer(name="mine", kl_weight=3.0)(x)
    x = SBPLayer(axis=(), name="whole")(layers.Conv2D(6, 3, name="second")(x))
    gated = keras_sbp.insert_sbp(head(inputs, x))
    assert gate_map(gated) == {"mine": ["relu"], "whole": ["second"], "second_gate": ["whole"]}
    assert gated.get_layer("mine").kl_weight == 3.0
    with pytest.raises(ValueError, match=r"nothing to gate(.|\n)*'first': gate 'mine' is there"):
        keras_sbp.insert_sbp(gated)


class Odd(layers.Layer):
    """Has weights of its own, so it cannot be unfolded."""

    def build(self, shape):
        self.factor = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        return x * self.factor


def test_opaque_layer_keeps_what_it_reads_and_makes() -> None:
    inputs = image()
    x = layers.Conv2D(8, 3, name="conv")(inputs)
    x = layers.Conv2D(8, 3, name="next")(Odd(name="odd")(x))
    model = head(inputs, x)
    assert gate_map(keras_sbp.insert_sbp(model)) == {"next_gate": ["next"]}
    with pytest.raises(ValueError, match=r"'conv', but cannot: 'odd' \(Odd\) needs all of its"):
        keras_sbp.insert_sbp(model, layers="conv")


def test_user_handler_is_enough() -> None:
    @keras.saving.register_keras_serializable(package="test_insert")
    class Twice(layers.Layer):
        def call(self, x):
            return keras.ops.multiply(x, 2.0)

    @keras_sbp.register_handler(Twice)
    class TwiceHandler(keras_sbp.handlers.UnitWise):
        def function(self, op):
            return op.operation.call

        def is_homogeneous(self, op):
            return True

    inputs = image()
    x = Twice(name="twice")(layers.Conv2D(8, 3, name="conv")(inputs))
    check(head(inputs, x), {"conv_gate": ["twice"]}, {"conv": 4})
