"""Which units are the same units, asked of the handlers."""

from __future__ import annotations

import numpy as np
import pytest
from keras import Input, Model, layers, ops

from keras_sbp.program import analyse, trace
from keras_sbp.program.coupling import (
    CoupledUnits,
    Spot,
    coupled_units,
    handed_on,
    makes_several_of_one,
)


def pairs(layer, *shapes) -> set[tuple[int, int, int]]:
    """(number of the input, its axis, axis of the output) for one call."""
    inputs = [Input(shape) for shape in shapes]
    program = trace(Model(inputs, layer(inputs if len(inputs) > 1 else inputs[0])))
    (op,) = program.ops
    found = handed_on(op, analyse(program).handlers[op])
    return {(op.inputs.index(a.tensor), a.axis, b.axis) for a, b in found}


@pytest.mark.parametrize(
    ("layer", "shapes", "expected"),
    [
        (layers.ReLU(), [(5, 4)], {(0, 1, 1), (0, 2, 2)}),
        (layers.BatchNormalization(), [(5, 4)], {(0, 1, 1), (0, 2, 2)}),
        (layers.MaxPooling2D(), [(6, 6, 4)], {(0, 3, 3)}),
        (layers.GlobalAveragePooling2D(), [(6, 6, 4)], {(0, 3, 1)}),
        (layers.DepthwiseConv2D(3), [(6, 6, 4)], {(0, 3, 3)}),
        (layers.DepthwiseConv2D(3, depth_multiplier=2), [(6, 6, 4)], set()),
        (layers.Conv2D(4, 1), [(6, 6, 4)], set()),
        (layers.SeparableConv2D(4, 1), [(6, 6, 4)], set()),
        (layers.Dense(4), [(5, 4)], {(0, 1, 1)}),
        (layers.Dense(4, kernel_initializer="zeros"), [(4,)], set()),
        (layers.Add(), [(5, 4), (5, 4)], {(n, a, a) for n in (0, 1) for a in (1, 2)}),
        (layers.Multiply(), [(5, 4), (1, 4)], {(0, 1, 1), (0, 2, 2), (1, 2, 2)}),
        (layers.Concatenate(), [(5, 4), (5, 3)], {(0, 1, 1), (1, 1, 1)}),
        (layers.Flatten(), [(5, 4)], set()),
        (layers.Flatten(), [(1, 4)], {(0, 2, 1)}),
        (layers.Reshape((1, 1, 4)), [(4,)], {(0, 1, 3)}),
        (layers.Permute((2, 1)), [(5, 4)], {(0, 1, 2), (0, 2, 1)}),
        (layers.LayerNormalization(), [(5, 4)], {(0, 1, 1)}),
        (layers.Dense(2), [(2, 2)], {(0, 1, 1)}),
    ],
    ids=lambda x: x.name if isinstance(x, layers.Layer) else "",
)
def test_handed_on(layer, shapes, expected) -> None:
    assert pairs(layer, *shapes) == expected


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.DepthwiseConv2D(3, depth_multiplier=2), True),
        (layers.DepthwiseConv2D(3), False),
        (layers.Conv2D(8, 3, groups=4), True),
        (layers.Conv2D(8, 3, groups=2), False),
        (layers.Conv2D(8, 3), False),
        (layers.Conv2D(8, 3, kernel_initializer="zeros"), False),
    ],
    ids=lambda x: x.name if isinstance(x, layers.Layer) else "",
)
def test_several_units_of_one(layer, expected: bool) -> None:
    image = Input((6, 6, 4))
    program = trace(Model(image, layer(image)))
    (op,) = program.ops
    handler = analyse(program).handlers[op]
    assert makes_several_of_one(op, handler, Spot(op.outputs[0], 3)) is expected


def groups_of(model: Model) -> tuple[list[CoupledUnits], dict]:
    program = trace(model)
    outputs = {op.name: op.outputs[0] for op in program.ops}
    return coupled_units(program, analyse(program).handlers), outputs


def names(group: CoupledUnits) -> list[str]:
    return [op.name for op in dict.fromkeys(group.makers.values())]


def test_groups_and_their_sources() -> None:
    inputs = Input((6,))
    x = layers.ReLU(name="relu")(layers.Dense(4, name="a")(inputs))
    y = layers.Dense(4, name="b")(x)
    z = layers.Dense(3, name="c")(layers.Add(name="add")([x, y]))
    groups, tensors = groups_of(Model(inputs, z))
    assert [names(group) for group in groups] == [[], ["a", "relu", "b", "add"], ["c"]]
    stream = groups[1]
    assert stream.sources == [Spot(tensors["a"], 1), Spot(tensors["b"], 1)]
    assert stream.spots[Spot(tensors["add"], 1)] == [
        Spot(tensors["relu"], 1),
        Spot(tensors["b"], 1),
    ]
    assert not stream.contracts


def test_calls_of_a_shared_layer_are_one_group() -> None:
    dense = layers.Dense(4, name="shared")
    a, b = Input((6,)), Input((6,))
    groups, _ = groups_of(Model([a, b], [dense(a), layers.ReLU(name="r")(dense(b))]))
    # The inputs that one kernel reads are coupled as well.
    assert [len(group.spots) for group in groups] == [2, 3]


def test_widths_of_query_and_key_are_contracted() -> None:
    inputs = Input((7, 8))
    x = layers.MultiHeadAttention(2, 3, name="m")(inputs, inputs)
    groups, tensors = groups_of(Model(inputs, x))
    (width,) = [group for group in groups if group.contracts]
    assert {spot.tensor for spot in width.sources} == {tensors["m/query"], tensors["m/key"]}
    heads = next(g for g in groups if Spot(tensors["m/query"], 2) in g.spots)
    assert Spot(tensors["m/value"], 2) in heads.spots and not heads.contracts


def test_unknown_sizes_and_single_units_are_left_out() -> None:
    inputs = Input((None, 1))
    groups, _ = groups_of(Model(inputs, ops.relu(layers.Dense(4)(inputs))))
    assert [[spot.axis for spot in group.spots] for group in groups] == [[2, 2]]


def test_opaque_layer_hands_nothing_on() -> None:
    class Odd(layers.Layer):
        def build(self, shape):
            self.factor = self.add_weight(shape=())

        def call(self, x):
            return x * self.factor

    assert pairs(Odd(), (4,)) == set()


def test_identity_kernel_is_told_by_its_units() -> None:
    # A known limit: weights that happen to treat units one by one look like a layer that does.
    assert pairs(layers.Dense(4, kernel_initializer="identity"), (4,)) == {(0, 1, 1)}
    almost = layers.Dense(4)
    almost.build((None, 4))
    almost.kernel.assign(np.tril(np.ones((4, 4))))
    assert pairs(almost, (4,)) == set()
