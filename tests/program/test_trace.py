"""Models become programs."""

from __future__ import annotations

import keras
from keras import Input, Model, Sequential, layers

from keras_sbp.layers import SBPLayer, find_gates
from keras_sbp.program import macs, trace


def names(model: keras.Model) -> list[str]:
    return [op.name for op in trace(model).ops]


def test_sequential() -> None:
    model = Sequential([Input((4,)), layers.Dense(3, name="a"), layers.ReLU(name="b")])
    program = trace(model)
    assert names(model) == ["a", "b"]
    assert program.ops[1].inputs == program.ops[0].outputs
    assert program.outputs == program.ops[1].outputs
    assert program.inputs[0].shape == (None, 4)


def test_nested_models_unfold_and_share() -> None:
    inner = Sequential([Input((4,)), layers.Dense(4, name="shared")])
    features = Input((4,))
    outer = Model(features, inner(layers.ReLU(name="between")(inner(features))))
    program = trace(Sequential([Input((4,)), outer, layers.Dense(1, name="last")]))
    assert [op.name for op in program.ops] == ["shared", "between", "shared", "last"]
    assert program.ops[0].operation is program.ops[2].operation
    assert [op.shared for op in program.ops] == [True, False, True, False]


def test_nested_model_of_another_dtype_casts() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    inner = Sequential([Input((4,)), layers.Dense(4, name="inside")])
    features = Input((4,))
    model = Model(features, inner(layers.Dense(4, name="before")(features)))
    assert [op.name.split("_")[-1] for op in trace(model).ops] == ["before", "cast", "inside"]


def test_structures_are_kept() -> None:
    a, b = Input((2,), name="a"), Input((3,), name="b")
    model = Model({"a": a, "b": b}, {"x": layers.Dense(1)(a), "y": [layers.Dense(1)(b)]})
    program = trace(model)
    assert set(program.input_structure) == {"a", "b"}
    assert len(program.outputs) == 2


def test_find_gates_at_any_depth_each_once() -> None:
    gate = SBPLayer(name="shared_gate")
    inner = Sequential([Input((4,)), layers.Dense(4), gate, SBPLayer(name="inner_gate")])
    features = Input((4,))
    model = Model(features, layers.Dense(1)(gate(inner(features))))
    assert sorted(g.name for g in find_gates(model)) == ["inner_gate", "shared_gate"]


def test_macs_by_hand() -> None:
    model = Sequential(
        [
            Input((10, 9, 4)),
            layers.Conv2D(8, (3, 2), strides=(2, 1), groups=2),
            layers.DepthwiseConv2D(2, depth_multiplier=2),
            layers.SeparableConv2D(5, 2),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(7),
        ]
    )
    expected = [4 * 8 * 6 * 2 * 8, 3 * 7 * 4 * 8 * 2, 2 * 6 * (4 * 16 + 16 * 5), 0, 0, 5 * 7]
    assert [macs(op) for op in trace(model).ops] == expected


def test_macs_of_channels_first_and_of_time_steps() -> None:
    keras_input = Input((7, 5))
    model = Model(keras_input, layers.Dense(3)(keras_input))
    assert [macs(op) for op in trace(model).ops] == [7 * 5 * 3]
    image = Input((4, 8, 6))
    convolution = layers.Conv2D(3, 1, data_format="channels_first")
    model = Model(image, convolution(image))
    assert [macs(op) for op in trace(model).ops] == [8 * 6 * 4 * 3]
