"""The options of insert_sbp, and what it refuses."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import Input, Model, layers

import keras_sbp
from keras_sbp.layers import find_gates
from tests.insertion.gate_map import gate_map


class Block(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.one = layers.Dense(6, "relu", name="one")
        self.two = layers.Dense(4, "relu", name="two")

    def call(self, x):
        return self.two(self.one(x))


def network() -> Model:
    features = Input((6,), name="features")
    x = layers.Dense(8, "relu", name="first")(features)
    x = Block(name="block_1")(x)
    nested = keras.Sequential(
        [Input((4,)), layers.Dense(5, name="inner"), layers.ReLU(name="inner_relu")], name="nested"
    )
    x = Block(name="block_2")(nested(x))
    return Model(features, layers.Dense(3, name="head")(x), name="net")


ALL = ["first_gate", "block_1_one_gate", "block_1_two_gate", "inner_gate"] + [
    "block_2_one_gate",
    "block_2_two_gate",
]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (["first", "inner"], ["first_gate", "inner_gate"]),
        ("first", ["first_gate"]),
        ("block_1", ["block_1_one_gate", "block_1_two_gate"]),
        (["block_2/one"], ["block_2_one_gate"]),
        (["two"], ["block_1_two_gate", "block_2_two_gate"]),
        ("nested", ["inner_gate"]),
    ],
)
def test_layers_and_exclude_by_name(layers, expected) -> None:
    model = network()
    assert list(gate_map(keras_sbp.insert_sbp(model))) == ALL
    assert list(gate_map(keras_sbp.insert_sbp(model, layers=layers))) == expected
    others = [name for name in ALL if name not in expected]
    assert list(gate_map(keras_sbp.insert_sbp(model, exclude=layers))) == others


def test_layers_and_exclude_by_object() -> None:
    model = network()
    block = model.get_layer("block_1")
    chosen = keras_sbp.insert_sbp(model, layers=[block, "first"], exclude=[block.two])
    assert list(gate_map(chosen)) == ["first_gate", "block_1_one_gate"]


@pytest.mark.parametrize("argument", ["layers", "exclude"])
def test_unknown_names(argument: str) -> None:
    with pytest.raises(ValueError, match=f"'blokc_1', which `{argument}`(.*)Did you mean 'block_1"):
        keras_sbp.insert_sbp(network(), **{argument: ["blokc_1"]})
    with pytest.raises(ValueError, match="'stranger', which"):
        keras_sbp.insert_sbp(network(), **{argument: [layers.Dense(3, name="stranger")]})
    with pytest.raises(TypeError, match="Received: 3 "):
        keras_sbp.insert_sbp(network(), **{argument: [3]})
    with pytest.raises(TypeError, match="Received: 3 "):
        keras_sbp.insert_sbp(network(), **{argument: 3})


@pytest.mark.parametrize(
    ("name", "reason"),
    [("head", "its units are an output of the model"), ("inner_relu", "it makes no units")],
)
def test_named_layer_that_cannot_be_gated(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"asked to gate '{name}', but cannot: {reason}"):
        keras_sbp.insert_sbp(network(), layers=["first", name])


@pytest.mark.remedy("Remove the option, or pass gate='units'")
@pytest.mark.parametrize(
    ("option", "value"),
    [("placement", "layer"), ("attention", None), ("tie_residual", True)],
)
def test_options_that_are_ignored_are_refused(option: str, value: Any) -> None:
    x = Input((6,))
    model = Model(x, layers.Add()([x, layers.Dense(6)(layers.Dense(4)(x))]))
    with pytest.raises(
        ValueError, match=f"`{option}` has no meaning.*Received: {option}={value!r}"
    ):
        keras_sbp.insert_sbp(model, gate="branch", **{option: value})
    keras_sbp.insert_sbp(model, gate="branch")
    keras_sbp.insert_sbp(model, gate="units", **{option: value})


def test_nothing_to_gate() -> None:
    features = Input((6,))
    with pytest.raises(ValueError, match="'only': its units are an output of the model"):
        keras_sbp.insert_sbp(Model(features, layers.Dense(3, name="only")(features)))
    with pytest.raises(ValueError, match="no layer makes units with weights"):
        keras_sbp.insert_sbp(Model(features, layers.ReLU()(features)))
    with pytest.raises(ValueError, match="everything that could be gated is excluded"):
        keras_sbp.insert_sbp(network(), exclude=["first", "block_1", "inner", "block_2"])
    with pytest.raises(ValueError, match="no layer adds a branch to a shortcut"):
        keras_sbp.insert_sbp(network(), gate="branch")


def test_nothing_to_gate_but_a_residual_stream_or_an_input() -> None:
    features = Input((6,))
    x = layers.Dense(6, name="a")(features)
    x = layers.Add()([x, layers.Dense(6, name="b")(x)])
    model = Model(features, layers.Dense(3)(x))
    with pytest.raises(ValueError, match="'a', 'b' write the same units; tie_residual=True"):
        keras_sbp.insert_sbp(model)
    assert gate_map(keras_sbp.insert_sbp(model, tie_residual=True)) == {"a_gate": ["a", "b"]}

    x = layers.Add()([features, layers.Dense(6, name="b")(features)])
    with pytest.raises(ValueError, match="'b': its units are coupled to an input"):
        keras_sbp.insert_sbp(Model(features, layers.Dense(3)(x)), tie_residual=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"placement": "front"}, "`placement` to be one of 'activation', 'layer'"),
        ({"gate": "layers"}, "`gate` to be one of 'units', 'branch'"),
        ({"attention": "width"}, "`attention` to be one of 'heads', 'heads\\+width', None"),
        ({"kl_weight": "flops"}, "`kl_weight` to be a number of 0 or greater, or 'macs'"),
        ({"kl_weight": -1.0}, "`kl_weight` to be a finite number of 0 or greater"),
        ({"axis": 1}, "chooses `axis` for each gate itself"),
        ({"name": "g"}, "chooses `name` for each gate itself"),
        ({"noise": "loud"}, "noise to be one of"),
        ({"log_hgih": 0.0}, "log_hgih"),
    ],
)
def test_bad_options(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        keras_sbp.insert_sbp(network(), **options)


def test_bad_model() -> None:
    with pytest.raises(TypeError, match=r"Expected a .*keras\.Model"):
        keras_sbp.insert_sbp("model.keras")
    with pytest.raises(ValueError, match="not built"):
        keras_sbp.insert_sbp(keras.Sequential([layers.Dense(3)]))


def test_gate_options_reach_every_gate() -> None:
    gated = keras_sbp.insert_sbp(
        network(), num_samples=77, kl_weight=2.0, noise="batch", learning_rate_multiplier=3.0
    )
    for gate in find_gates(gated):
        assert (gate.num_samples, gate.kl_weight, gate.noise) == (77.0, 2.0, "batch")
        assert gate.learning_rate_multiplier == 3.0


def test_gate_gets_another_name_where_its_own_is_taken() -> None:
    features = Input((6,))
    x = layers.Dense(8, name="a")(features)
    x = layers.Dense(8, name="a_gate")(layers.ReLU()(x))
    gated = keras_sbp.insert_sbp(Model(features, layers.Dense(2)(x)))
    assert list(gate_map(gated)) == ["a_gate_1", "a_gate_gate"]


def test_kl_weight_by_macs() -> None:
    image = Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="stem")(image)
    x = layers.ReLU()(x)
    x = layers.DepthwiseConv2D(3, padding="same", strides=2, name="depthwise")(x)
    x = layers.Conv2D(6, 1, name="project")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(10, name="hidden")(x)
    gated = keras_sbp.insert_sbp(Model(image, layers.Dense(5)(x)), kl_weight="macs")
    costs = {
        # makes a channel · filters it · reads it
        "stem_gate": 64 * 27 + 16 * 9 + 16 * 6,
        "project_gate": 16 * 4 + 16 * 10,
        "hidden_gate": 16 * 6 + 5,
    }
    units = {"stem_gate": 4, "project_gate": 6, "hidden_gate": 10}
    mean = sum(costs[name] * units[name] for name in costs) / sum(units.values())
    weights = {gate.name: gate.kl_weight for gate in find_gates(gated)}
    assert weights == pytest.approx({name: cost / mean for name, cost in costs.items()})
    assert sum(weights[name] * units[name] for name in units) == pytest.approx(20)


def test_kl_weight_by_macs_sees_weights_that_are_zero_now() -> None:
    features = Input((6,))
    x = layers.Dense(8, name="a")(features)
    x = layers.Dense(4, kernel_initializer="zeros", name="b")(x)
    gated = keras_sbp.insert_sbp(Model(features, layers.Dense(2)(x)), kl_weight="macs")
    cost_a, cost_b = 6 + 4, 8 + 2
    mean = (8 * cost_a + 4 * cost_b) / 12
    weights = [gate.kl_weight for gate in find_gates(gated)]
    assert weights == pytest.approx([cost_a / mean, cost_b / mean])


def test_kl_weight_by_macs_adds_up_at_ties_and_heads() -> None:
    x = inputs = Input((7, 8))
    x = layers.Dense(8, name="embed")(x)
    x = x + layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.Dense(5, name="head")(layers.Flatten()(x))
    gated = keras_sbp.insert_sbp(Model(inputs, x), tie_residual=True, kl_weight="macs")
    weights = {gate.name: (gate.kl_weight, gate.units) for gate in find_gates(gated)}
    assert np.sum([w * n for w, n in weights.values()]) == pytest.approx(10)
    stream = 7 * 8 + 3 * 7 * 6 + 7 * 6 + 7 * 5  # embed · query, key, value · output · head
    heads = 3 * 7 * 8 * 3 + 7 * 3 * 8
    attention = 2 * 7 * 7 * 3  # the products of queries, keys and values
    ratio = weights["attention_heads_gate"][0] / weights["embed_gate"][0]
    assert ratio == pytest.approx((heads + attention) / stream)
