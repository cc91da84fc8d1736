"""prune() says why a layer kept more than its gates asked; strict=True refuses opaque layers."""

from __future__ import annotations

import keras
import pytest
from keras import Input, Model, Sequential, layers

from keras_sbp.layers import find_gates
from keras_sbp.pruning import PruneReport, prune
from tests.pruning.oracle import drop_units, gate, randomise


def pruned(model: keras.Model) -> PruneReport:
    randomise(model, drop=0.0)
    for each in find_gates(model):
        drop_units(each, [0, 1])
    return prune(model)[1]


def reason(report: PruneReport, name: str) -> str:
    return next(row.reason for row in report.layers if row.name == name)


def image_net(*middle: keras.layers.Layer) -> keras.Model:
    head = [layers.GlobalAveragePooling2D(), layers.Dense(3)]
    return Sequential([Input((8, 8, 3)), layers.Conv2D(6, 3, name="first"), *middle, *head])


def test_residual_partner() -> None:
    features = Input((6,))
    x = gate()(layers.Dense(8, activation="relu", name="first")(features))
    y = layers.Dense(8, name="second")(features)
    report = pruned(Model(features, layers.Dense(3)(layers.Add(name="sum")([x, y]))))
    expected = "2 removed units kept for 'sum' (Add: its other inputs vary there)"
    assert reason(report, "first") == expected


def test_constant_other_than_zero_before_padding() -> None:
    padded = layers.Conv2D(4, 3, padding="same", name="padded")
    report = pruned(image_net(gate(), layers.Activation("sigmoid"), padded))
    assert reason(report, "first") == (
        "2 removed units kept for 'padded' (Conv2D: the units are constants other than 0, "
        "and it pads with 0)"
    )


def test_opaque_neighbour() -> None:
    report = pruned(
        image_net(gate(), layers.SpectralNormalization(layers.Conv2D(4, 1), name="odd"))
    )
    assert (
        reason(report, "first") == "2 removed units kept for 'odd' (opaque SpectralNormalization)"
    )
    assert reason(report, "odd").startswith("opaque: no handler for SpectralNormalization")


def test_output() -> None:
    features = Input((6,))
    x = gate()(layers.Dense(8, name="first")(features))
    report = pruned(Model(features, [x, layers.Dense(3)(x)]))
    assert reason(report, "first") == "2 removed units kept for the output"


def test_branch_that_leaves_before_the_gate() -> None:
    features = Input((6,))
    x = layers.Dense(8, name="first")(features)
    y = gate()(layers.ReLU()(x))
    both = layers.Concatenate()([layers.Dense(4, name="early")(x), layers.Dense(4)(y)])
    report = pruned(Model(features, layers.Dense(3)(both)))
    assert reason(report, "first") == (
        "2 removed units kept for 'early' (Dense: it reads them before the gate)"
    )


def test_nothing_to_say_where_all_went() -> None:
    report = pruned(image_net(layers.ReLU(), gate(), layers.Conv2D(4, 3, name="second")))
    assert [row.reason for row in report.layers] == [""] * len(report.layers)


def test_strict_names_every_opaque_call() -> None:
    odd = [layers.SpectralNormalization(layers.Conv2D(4, 1), name=f"odd_{i}") for i in range(2)]
    model = randomise(image_net(gate(), *odd), drop=0.0)
    with pytest.raises(ValueError, match=r"(?s)2 opaque calls.*'odd_0'.*'odd_1'.*register_handler"):
        prune(model, strict=True)
    assert prune(randomise(image_net(gate())), strict=True)
