"""Gates for whole residual branches: where they are, and that a dead branch disappears."""

from __future__ import annotations

import pytest
from keras import Input, Model, layers

import keras_sbp
from keras_sbp.layers import SBPLayer, find_gates
from tests.insertion.gate_map import gate_map
from tests.pruning.oracle import drop_units, randomise


def conv(x, filters, name, kernel=3, **options):
    x = layers.Conv2D(filters, kernel, padding="same", use_bias=False, name=name, **options)(x)
    return layers.BatchNormalization(name=f"{name}_bn")(x)


def add(x, y, written: str):
    return x + y if written == "operator" else getattr(layers, written)()([x, y])


def network(written: str = "Add", projection: bool = False) -> Model:
    image = Input((8, 8, 3))
    x = conv(image, 8, "stem")
    for k in (1, 2):
        y = layers.ReLU()(conv(x, 4, f"squeeze{k}"))
        y = conv(y, 8, f"expand{k}")
        x = conv(x, 8, f"shortcut{k}", kernel=1) if projection else x
        x = layers.ReLU(name=f"out{k}")(add(x, y, written))
    x = layers.GlobalAveragePooling2D()(x)
    return Model(image, layers.Dense(5, name="head")(x))


GATES = {f"expand{k}_branch_gate": [f"expand{k}_bn"] for k in (1, 2)}


def remaining(gated: Model, dead: list[str]) -> set[str]:
    """The layers that are left when these gates keep nothing."""
    randomise(gated, drop=0.0)
    for gate in find_gates(gated):
        drop_units(gate, [0] if gate.name in dead else [])
    small, _ = keras_sbp.prune(gated)
    return {layer.name for layer in small.layers}


@pytest.mark.parametrize("written", ["Add", "operator", "Average", "Subtract"])
@pytest.mark.parametrize("projection", [False, True])
def test_dead_branch_disappears(written: str, projection: bool) -> None:
    gated = keras_sbp.insert_sbp(network(written, projection), gate="branch")
    assert gate_map(gated) == GATES
    assert all(gate.axis is None for gate in find_gates(gated))
    left = remaining(gated, ["expand1_branch_gate"])
    assert not {"squeeze1", "squeeze1_bn", "expand1", "expand1_bn"} & left
    assert {"stem", "out1", "squeeze2", "expand2", "head"} <= left


@pytest.mark.parametrize("written", ["Multiply", "Maximum"])
def test_merges_that_a_zero_does_not_leave_alone_have_no_branches(written: str) -> None:
    with pytest.raises(ValueError, match="no layer adds a branch to a shortcut"):
        keras_sbp.insert_sbp(network(written), gate="branch")


def test_branch_that_is_read_elsewhere_goes_as_far_as_it_is_not() -> None:
    features = Input((6,))
    x = layers.Dense(8, name="stem")(features)
    y = layers.Dense(8, name="first")(x)
    z = layers.Dense(8, name="second")(layers.ReLU()(y))
    x = layers.Add(name="add")([x, z])
    model = Model(features, [layers.Dense(2, name="a")(x), layers.Dense(2, name="b")(y)])
    gated = keras_sbp.insert_sbp(model, gate="branch")
    assert gate_map(gated) == {"second_branch_gate": ["second"]}
    assert remaining(gated, ["second_branch_gate"]) >= {"first", "a", "b"}
    assert "second" not in remaining(gated, ["second_branch_gate"])

    model = Model(features, [layers.Dense(2)(x), layers.Dense(2)(z)])
    with pytest.raises(ValueError, match="no layer adds a branch to a shortcut"):
        keras_sbp.insert_sbp(model, gate="branch")


def test_parallel_branches() -> None:
    features = Input((6,))
    x = layers.Dense(8, name="stem")(features)
    wide = layers.Dense(8, name="wide_down")(layers.Dense(64, name="wide_up")(x))
    thin = layers.Dense(8, name="thin")(x)
    x = x + wide + thin
    gated = keras_sbp.insert_sbp(Model(features, layers.Dense(2)(x)), gate="branch")
    assert gate_map(gated) == {
        "wide_down_branch_gate": ["wide_down"],
        "thin_branch_gate": ["thin"],
    }


def test_sum_of_strangers_has_no_branch() -> None:
    a, b = Input((6,)), Input((6,))
    x = layers.Add()([layers.Dense(8)(a), layers.Dense(8)(layers.Dense(9)(b))])
    with pytest.raises(ValueError, match="no layer adds a branch to a shortcut"):
        keras_sbp.insert_sbp(Model([a, b], layers.Dense(2)(x)), gate="branch")


def test_selection_names_what_is_in_the_branch_or_the_sum() -> None:
    for name in ("squeeze2", "expand2"):
        gated = keras_sbp.insert_sbp(network(), gate="branch", layers=name)
        assert list(gate_map(gated)) == ["expand2_branch_gate"]
        gated = keras_sbp.insert_sbp(network(), gate="branch", exclude=name)
        assert list(gate_map(gated)) == ["expand1_branch_gate"]
    with pytest.raises(ValueError, match="'stem', but cannot"):
        keras_sbp.insert_sbp(network(), gate="branch", layers="stem")


def test_units_and_branches_together() -> None:
    gated = keras_sbp.insert_sbp(network(), gate="branch", kl_weight="macs")
    both = keras_sbp.insert_sbp(gated, tie_residual=True)
    assert len(find_gates(both)) == 2 + 3
    assert gate_map(both)["stem_gate"] == ["stem_bn"] + [f"expand{k}_branch_gate" for k in (1, 2)]
    with pytest.raises(ValueError, match="'expand1_branch_gate' is there already"):
        keras_sbp.insert_sbp(both, gate="branch")
    left = remaining(both, ["expand1_branch_gate"])
    assert "squeeze1" not in left and "squeeze2" in left


def test_macs_of_a_branch_weigh_its_gate() -> None:
    features = Input((6,))
    x = layers.Dense(8)(features)
    x = x + layers.Dense(8, name="one")(x)
    x = x + layers.Dense(8, name="two")(layers.Dense(16)(x))
    gated = keras_sbp.insert_sbp(
        Model(features, layers.Dense(2)(x)), gate="branch", kl_weight="macs"
    )
    weights = [gate.kl_weight for gate in find_gates(gated)]
    assert weights == pytest.approx([64 / 160, 256 / 160])
    assert all(isinstance(gate, SBPLayer) and gate.units == 1 for gate in find_gates(gated))
