"""Where insert_sbp puts gates, and that the units that they remove go."""

from __future__ import annotations

import keras
import pytest
from keras import Input, Model, layers, ops

import keras_sbp
from keras_sbp.layers import SBPLayer
from tests.pruning.gate_map import gate_map, units_after_half

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


def test_layer_that_is_called_twice_has_one_gate_called_twice() -> None:
    encoder = keras.Sequential(
        [
            Input(IMAGE),
            layers.Conv2D(8, 3, padding="same", name="first"),
            layers.ReLU(name="relu"),
            layers.Conv2D(6, 3, name="second"),
        ],
        name="encoder",
    )
    a, b = Input(IMAGE), Input(IMAGE)
    x = layers.Concatenate()([layers.Flatten()(encoder(a)), layers.Flatten()(encoder(b))])
    check(
        head([a, b], x),
        {"first_gate": ["relu", "relu"], "second_gate": ["second", "second"]},
        {"first": 4, "second": 3},
    )


def test_layer_that_reads_several_layers_ties_them() -> None:
    inputs = image()
    shared = layers.Conv2D(6, 3, padding="same", name="shared")
    y = layers.Conv2D(8, 3, padding="same", activation="relu", name="a")(inputs)
    z = layers.Conv2D(8, 5, padding="same", activation="relu", name="b")(inputs)
    model = head(inputs, layers.Concatenate()([shared(y), shared(z)]))
    check(model, {"shared_gate": ["shared", "shared"]}, {"shared": 3})
    gated = keras_sbp.insert_sbp(model, tie_residual=True)
    assert sorted(gate_map(gated)["b_gate"]) == ["a", "b"]
    assert units_after_half(gated) == {"a": 4, "b": 4, "shared": 3}


def test_normalisation_that_mixes_units_is_gated_behind() -> None:
    inputs = Input((6,))
    x = layers.Dense(8, name="first")(inputs)
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.Dense(8, name="second")(relu(x, "relu"))
    x = layers.RMSNormalization(name="rms")(x)
    gated = keras_sbp.insert_sbp(head(inputs, x))
    assert gate_map(gated) == {"first_gate": ["relu"], "second_gate": ["second"]}
    # LayerNormalization needs all that it normalises; RMSNormalization can do without zeros.
    assert units_after_half(gated) == {"second": 4, "rms": 4}


def test_channels_first() -> None:
    inputs = Input((3, 7, 9))
    x = layers.Conv2D(8, 3, data_format="channels_first", padding="same", name="conv")(inputs)
    x = relu(layers.BatchNormalization(axis=1, name="bn")(x), "relu")
    x = layers.GlobalAveragePooling2D(data_format="channels_first")(x)
    gated = keras_sbp.insert_sbp(head(inputs, x))
    assert gate_map(gated) == {"conv_gate": ["relu"]}
    assert gated.get_layer("conv_gate").axis == 1
    assert units_after_half(gated)["conv"] == 4


def test_recurrent_layers_and_embedding() -> None:
    inputs = Input((10,), dtype="int32")
    x = layers.Embedding(50, 8, name="embedding")(inputs)
    x = layers.LSTM(6, return_sequences=True, name="lstm")(x)
    x = layers.GRU(4, name="gru")(x)
    gated = keras_sbp.insert_sbp(head(inputs, x))
    assert gate_map(gated) == {
        "embedding_gate": ["embedding"],
        "lstm_gate": ["lstm"],
        "gru_gate": ["gru"],
    }
    assert units_after_half(gated)["embedding"] == 4


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_attention(dropout: float) -> None:
    inputs = Input((7, 8))
    x = layers.MultiHeadAttention(4, 6, dropout=dropout, name="attention")(inputs, inputs)
    model = head(inputs, x)
    heads = keras_sbp.insert_sbp(model)
    (before,) = gate_map(heads)["attention_heads_gate"]
    assert before.split("_")[0] in ("dot", "einsum")
    gate = heads.get_layer("attention_heads_gate")
    assert (gate.axis, gate.units) == (2, 4)
    assert "attention_width_gate" not in gate_map(heads)

    both = keras_sbp.insert_sbp(model, attention="heads+width")
    assert both.get_layer("attention_width_gate").units == 6
    pruned = units_after_half(both)
    assert (pruned["attention_query"], pruned["attention_key"]) == (3, 3)
    assert "attention_value" not in pruned

    neither = keras_sbp.insert_sbp(model, attention=None)
    assert list(gate_map(neither)) == ["attention_attention_output_gate"]


def test_dead_heads_leave_query_key_value_and_output() -> None:
    inputs = Input((7, 8))
    x = layers.MultiHeadAttention(4, 6, name="attention")(inputs, inputs)
    gated = keras_sbp.insert_sbp(head(inputs, x), exclude="attention_output")
    gated.get_layer("attention_heads_gate").set_posterior(0.0, [-3.0, 3.0, 3.0, -3.0])
    small, _ = keras_sbp.prune(gated)
    for name in ("query", "key", "value"):
        assert small.get_layer(f"attention_{name}").kernel.shape == (8, 2, 6)
    assert small.get_layer("attention_attention_output").kernel.shape == (2, 6, 8)


def test_query_heads_that_share_a_key_have_the_gate() -> None:
    inputs = Input((7, 8))
    attention = layers.GroupQueryAttention(6, 4, 2, name="attention")
    gated = keras_sbp.insert_sbp(head(inputs, attention(inputs, inputs)))
    assert gated.get_layer("attention_heads_gate").units == 4
    assert len(gate_map(gated)) == 2  # and the output projection's


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

    @keras_sbp.graph.handler.handles(Twice)
    class TwiceHandler(keras_sbp.graph.handlers.unitwise.UnitWise):
        def function(self, op):
            return op.operation.call

        def is_homogeneous(self, op):
            return True

    inputs = image()
    x = Twice(name="twice")(layers.Conv2D(8, 3, name="conv")(inputs))
    check(head(inputs, x), {"conv_gate": ["twice"]}, {"conv": 4})
