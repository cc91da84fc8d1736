"""Which layers have a gate, and why the others have none: each layer once, with the right words."""

from __future__ import annotations

import json

import keras
import pytest
from keras import Input, Model, Sequential, layers

import keras_sbp
from keras_sbp.insertion import GatedLayer, GatesReport
from keras_sbp.layers import find_gates
from tests.pruning.oracle import gate


def residual() -> Model:
    """A stem, a residual block with normalisation and a depthwise convolution, a head."""
    x = image = Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", name="stem")(x)
    y = layers.Conv2D(16, 1, use_bias=False, name="expand")(x)
    y = layers.ReLU()(layers.BatchNormalization(name="norm")(y))
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(y)
    y = layers.Conv2D(8, 1, name="project")(y)
    x = layers.Add(name="sum")([x, y])
    x = layers.Dense(6, activation="relu", name="hidden")(layers.GlobalAveragePooling2D()(x))
    return Model(image, [layers.Dense(4, name="logits")(x), layers.Dense(1, name="value")(x)])


def attention() -> Model:
    class Encoder(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.attention = layers.MultiHeadAttention(2, 4, name="attention")

        def call(self, x):
            return self.attention(x, x)

    x = Input((6, 8))
    y = layers.Dense(5, activation="relu", name="hidden")(Encoder(name="encoder")(x))
    return Model(x, layers.Dense(3, name="logits")(y))


def said(report: GatesReport) -> dict[str, str]:
    """What stands in the report of each layer; every layer stands there once."""
    names = [each.name for each in report.layers]
    assert len(set(names)) == len(names)
    assert all(bool(each.gates) != bool(each.reason) for each in report.layers)
    return {each.name: ", ".join(each.gates) or each.reason for each in report.layers}


OUTPUT = "its units are an output of the model"
NO_UNITS = "it makes no units of its own"
STREAM = "'stem', 'project' write the same units; tie_residual=True gives them one shared gate"


def test_every_layer_with_weights_has_its_gate_or_the_reason() -> None:
    model = residual()
    found = said(keras_sbp.gates_report(keras_sbp.insert_sbp(model, verbose=0)))
    assert found == {
        "stem": STREAM,
        "expand": "expand_gate",
        "norm": "expand_gate",
        "depthwise": "expand_gate",
        "project": STREAM,
        "hidden": "hidden_gate",
        "logits": OUTPUT,
        "value": "it makes a single unit",
    }
    assert set(found) == {layer.name for layer in model.layers if layer.weights}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"exclude": "expand"}, {"expand": "excluded", "norm": NO_UNITS, "hidden": "hidden_gate"}),
        ({"layers": ["expand"]}, {"hidden": "not among `layers`", "expand": "expand_gate"}),
        ({"tie_residual": True}, {"stem": "stem_gate", "project": "stem_gate"}),
        (
            {"gate": "branch"},
            {"project": "project_branch_gate", "norm": "project_branch_gate"}
            | dict.fromkeys(["stem", "hidden", "logits"], "it is on no residual branch"),
        ),
    ],
)
def test_what_was_asked_for_is_a_reason(options, expected) -> None:
    found = said(keras_sbp.gates_report(keras_sbp.insert_sbp(residual(), verbose=0, **options)))
    assert len(found) == 8
    assert found == found | expected


@pytest.mark.parametrize(
    ("wanted", "query", "value"),
    [
        ("heads", "encoder_attention_heads_gate", "encoder_attention_heads_gate"),
        (
            "heads+width",
            "encoder_attention_heads_gate, encoder_attention_width_gate",
            "encoder_attention_heads_gate",
        ),
        (None, "not asked for: attention=None", "not asked for: attention=None"),
    ],
)
def test_layers_of_attention(wanted, query, value) -> None:
    found = said(keras_sbp.gates_report(keras_sbp.insert_sbp(attention(), attention=wanted)))
    path = "encoder/attention"
    assert [found[f"{path}/{name}"] for name in ("query", "key", "value")] == [query, query, value]


def test_attention_of_one_head_has_only_its_width() -> None:
    x = Input((6, 8))
    y = layers.MultiHeadAttention(1, 4, name="attention")(x, x)
    model = Model(x, layers.Dense(3, name="logits")(y))
    found = said(keras_sbp.gates_report(keras_sbp.insert_sbp(model, verbose=0)))
    assert found["attention/query"] == "not asked for, as the width of attention"
    wider = keras_sbp.insert_sbp(model, attention="heads+width", verbose=0)
    found = said(keras_sbp.gates_report(wider))
    assert found["attention/query"] == found["attention/key"] == "attention_width_gate"


def stream(read: type | None, *, before: bool) -> Model:
    """A residual stream that a layer reads before the branch, or behind the sum."""
    x = tokens = Input((6, 3))
    x = stem = layers.Dense(8, name="stem")(x)
    x = read(name="reader")(x) if read and before else x
    y = layers.Dense(8, name="project")(layers.Dense(5, activation="relu", name="hidden")(x))
    x = layers.Add(name="sum")([stem, y])
    x = read(name="reader")(x) if read and not before else x
    return Model(tokens, layers.Dense(3, name="logits")(x))


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("read", [None, layers.LayerNormalization, layers.RMSNormalization])
def test_tying_a_stream_is_advised_only_where_it_gives_a_gate(read, before) -> None:
    model = stream(read, before=before)
    tied = keras_sbp.insert_sbp(model, tie_residual=True, verbose=0)
    found = [said(keras_sbp.gates_report(each))["stem"] for each in (model, tied)]
    if read is layers.LayerNormalization:
        assert found == ["'reader' (LayerNormalization) needs all of its units"] * 2
    else:
        assert found == [STREAM, "stem_gate"]


def test_a_layer_whose_units_the_gates_of_others_remove() -> None:
    x = Input((8, 8, 3))
    towers = [layers.Conv2D(4, 1, name=name)(x) for name in "ab"]
    y = gate(name="of_both")(layers.Concatenate()([gate(name="of_a")(towers[0]), towers[1]]))
    model = Model(x, layers.Dense(2, name="logits")(layers.Flatten()(y)))
    assert said(keras_sbp.gates_report(model)) == {"a": "of_a", "b": "of_both", "logits": OUTPUT}


def test_a_depthwise_convolution_in_a_residual_stream() -> None:
    image = Input((8, 8, 3))
    x = layers.Conv2D(4, 1, name="stem")(image)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Add()([x, layers.Conv2D(4, 1, name="project")(y)])
    model = Model(image, layers.Dense(2, name="logits")(layers.Flatten()(x)))
    found = said(keras_sbp.gates_report(model))
    assert found["depthwise"] == NO_UNITS
    assert found["stem"] == STREAM


def test_a_shared_layer_and_an_opaque_one() -> None:
    class Odd(layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(shape[-1],), name="scale")

        def call(self, x, training=False):
            return x * self.scale if training else keras.ops.flip(x, -1) * self.scale

    x, shared = Input((4,)), layers.Dense(4, activation="relu", name="shared")
    y = layers.Dense(7, activation="relu", name="hidden")(shared(shared(x)))
    y = layers.Dense(6, name="before")(y)
    model = Model(x, layers.Dense(2, name="logits")(Odd(name="odd")(y)))
    found = said(keras_sbp.gates_report(model))
    assert list(found) == ["shared", "hidden", "before", "odd", "logits"]
    assert found["hidden"] == "insert_sbp would gate its units"
    assert found["before"] == "'odd' (Odd) needs all of its units"
    assert found["odd"].startswith("'odd' is opaque: ")


def test_a_layer_that_a_normalisation_needs_whole() -> None:
    x = Input((12, 8))
    y = layers.LayerNormalization(name="norm")(layers.Dense(16, name="up")(x))
    model = Model(x, layers.Dense(2, name="logits")(y))
    gated = keras_sbp.insert_sbp(model, verbose=0)
    for each in (gated, keras.models.clone_model(gated)):
        found = said(keras_sbp.gates_report(each))
        assert found["norm"] == "up_gate"
        assert found["up"] == "'norm' (LayerNormalization) needs all of its units"


def test_of_models_that_insert_sbp_did_not_make(tmp_path) -> None:
    by_hand = Sequential(
        [
            Input((5,)),
            gate(name="features"),
            layers.Dense(8, activation="relu", name="a"),
            gate(name="units"),
            layers.Dense(6, activation="relu", name="b"),
            layers.Dense(3, name="c"),
        ]
    )
    report = keras_sbp.gates_report(by_hand)
    assert said(report) == {"a": "units", "b": "insert_sbp would gate its units", "c": OUTPUT}
    assert report.gates == ("features", "units")

    made = keras_sbp.insert_sbp(residual(), verbose=0)
    made = keras_sbp.insert_sbp(made, gate="branch", verbose=0)
    made.save(tmp_path / "gated.keras")
    loaded = keras.saving.load_model(tmp_path / "gated.keras")
    now, then = (keras_sbp.gates_report(each) for each in (loaded, made))
    assert [each.gates for each in now.layers] == [each.gates for each in then.layers]
    assert now.layers[1].gates == ("expand_gate", "project_branch_gate")
    assert {gate.name for gate in find_gates(loaded)} == set(now.gates)


def test_the_report_is_of_the_model_that_was_returned() -> None:
    model = residual()
    keras_sbp.insert_sbp(model, exclude="hidden", verbose=0)
    assert said(keras_sbp.gates_report(model))["hidden"] == "insert_sbp would gate its units"


def test_verbose(capsys) -> None:
    model = residual()
    keras_sbp.insert_sbp(model, verbose=0)
    assert capsys.readouterr().out == ""
    gated = keras_sbp.insert_sbp(model)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("insert_sbp: 2 gates; without one: 4 of 8 layers with weights")
    keras_sbp.insert_sbp(model, verbose=1)
    table = capsys.readouterr().out
    keras_sbp.gates_report(gated).print()
    assert capsys.readouterr().out == table
    with pytest.raises(ValueError, match="expected `verbose` to be one of 'auto', 0, 1, 2"):
        keras_sbp.insert_sbp(model, verbose=3)


def test_pruning_by_a_rule_without_gates_says_nothing(capsys) -> None:
    keras_sbp.prune(residual(), keras_sbp.L1Norm(keep=0.5))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("width", [50, 80])
def test_the_table_has_each_layer_and_each_reason_once(width) -> None:
    report = keras_sbp.gates_report(keras_sbp.insert_sbp(residual(), verbose=0))
    told: list[str] = []
    report.summary(line_length=width, print_fn=told.append)
    lines = told[0].splitlines()
    assert max(map(len, lines)) <= width
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert [row[0] for row in cells] == [each.name for each in report.layers]
    gates = [", ".join(each.gates) for each in report.layers]
    assert [row[2] for row in cells if not row[2].startswith("none (")] == list(filter(None, gates))
    assert " ".join(told[0].split()).count(STREAM) == 1
    assert told[0].count(OUTPUT) == 1


def test_as_values() -> None:
    report = keras_sbp.gates_report(keras_sbp.insert_sbp(residual(), verbose=0))
    values = json.loads(json.dumps(report.to_dict()))
    assert values["gates"] == ["expand_gate", "hidden_gate"]
    expand = {"name": "expand", "units": 16, "gates": ["expand_gate"], "reason": ""}
    assert values["layers"][1] == expand
    assert repr(report) == "GatesReport(2 gates; without one: 4 of 8 layers with weights)"
    assert repr(report.layers[1]) == "GatedLayer('expand', 16 units, expand_gate)"
    assert "no gate: excluded" in repr(GatedLayer("a", 4, (), "excluded"))
