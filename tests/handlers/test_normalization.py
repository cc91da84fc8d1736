"""What is physically left of layer, group, RMS and unit normalisation."""

from __future__ import annotations

import numpy as np
import pytest
from keras import Input, Model, Sequential, layers

from keras_sbp.program import trace
from keras_sbp.program.handler import find_handler
from keras_sbp.pruning import prune
from tests.handlers.pruned import image_network, kinds, pruned
from tests.pruning.oracle import gate


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
        layers.Conv2D(64, 3, name="between"),
        layers.GroupNormalization(32, name="group"),
        layers.Conv2D(64, 3, name="after"),
    )
    small = pruned(model, layer=[0, 1, 2], group=[0, *range(10, 40)])
    assert small.get_layer("between").kernel.shape == (3, 3, 5, 34)
    assert small.get_layer("group").groups == 17
    assert small.get_layer("after").kernel.shape[-2] == 34  # a copy would not pay for one more


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
        parts = [layers.Dense(8, name="before"), gate(), layers.Activation("sigmoid")]
        parts += [norm, gate(), layers.Dense(64)]
        small = pruned(Sequential([Input((5,)), *parts]), [0, 3], [0, 1])
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


def test_batch_normalization_with_a_mask_is_opaque() -> None:
    x, steps = Input((6, 5)), Input((6,), dtype="bool")
    model = Model([x, steps], layers.BatchNormalization()(x, mask=steps))
    assert {find_handler(op)[1] for op in trace(model).ops} == {"it is called with a mask"}
    prune(model)
