"""Equations are read letter by letter; EinsumDense and products lose what cannot matter."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import Input, Model, layers, ops

from keras_sbp.handlers.layers.einsum_dense import misplaced
from keras_sbp.program import analyse, macs, trace
from keras_sbp.program.equation import Equation, matmul_equation, parse
from tests.pruning.oracle import assert_same_function, drop_units, find_gates, gate, randomise


@pytest.mark.parametrize(
    ("subscripts", "ranks", "expected"),
    [
        ("abc,cde->abde", (3, 3), (("abc", "cde"), "abde")),
        (" ab, bc -> ac ", (2, 2), (("ab", "bc"), "ac")),
        ("...x,xy->...y", (4, 2), (("012x", "xy"), "012y")),
        ("ab...,bc->ac...", (4, 2), (("ab01", "bc"), "ac01")),
        ("...ab,...bc->...ac", (4, 3), (("01ab", "1bc"), "01ac")),
        ("bij->bji", (3,), (("bij",), "bji")),
        ("ab,bc", (2, 2), None),  # names no output
        ("abb,bc->ac", (3, 2), None),  # takes a diagonal
        ("abc,cd->abd", (2, 2), None),  # has other ranks
        ("...x,xy->y", (3, 2), None),  # sums what is under an ellipsis
        ("ab,bc->ad", (2, 2), None),
        ("a-b,bc->ac", (2, 2), None),
    ],
)
def test_parse(subscripts, ranks, expected) -> None:
    assert parse(subscripts, ranks) == (expected and Equation(*expected))


@pytest.mark.parametrize(
    ("left", "right"), [((2, 3), (3, 4)), ((5, 2, 3), (3,)), ((6, 1, 2, 3), (5, 3, 4))]
)
def test_matmul_equation(left, right) -> None:
    equation = matmul_equation(len(left), len(right))
    x, y = np.random.default_rng(0).normal(size=left), np.random.default_rng(1).normal(size=right)
    letters = [term.translate({48 + i: "xyz"[i] for i in range(3)}) for term in equation.operands]
    output = equation.output.translate({48 + i: "xyz"[i] for i in range(3)})
    if left[1] != 1:
        assert np.allclose(np.einsum(f"{letters[0]},{letters[1]}->{output}", x, y), x @ y)
    assert len(output) == (x @ y).ndim


def test_only_letters_of_one_known_size_are_followed() -> None:
    equation = matmul_equation(4, 4)
    sizes = equation.sizes([(None, 1, None, 3), (None, 5, 3, 4)], (None, 5, None, 4))
    assert sizes == {"k": 3, "n": 4}


def pruned(make, units=None):
    model = randomise(make(), drop=0.0)
    for each in find_gates(model):
        drop_units(each, units or list(range(1, each.units, 2)))
    return assert_same_function(model)[0]


def kinds(model: keras.Model) -> list[str]:
    return [type(op.operation).__name__ for op in trace(model).ops]


def weights_of(model: keras.Model, number: int) -> list[tuple[int, ...]]:
    dense = [each for each in model.layers if isinstance(each, layers.EinsumDense)]
    return [tuple(w.shape) for w in dense[number].weights]


def test_heads_and_features_go_and_nothing_comes() -> None:
    def make():
        x = image = Input((5, 8))
        x = gate()(layers.Dense(6)(x))
        x = gate(axis=2)(layers.EinsumDense("abc,cde->abde", (5, 4, 7), bias_axes="de")(x))
        return Model(image, layers.EinsumDense("abde,def->abf", (5, 9), bias_axes="f")(x))

    small = pruned(make)
    assert kinds(small) == ["Dense", "EinsumDense", "EinsumDense"]
    assert weights_of(small, 0) == [(3, 2, 7), (2, 7)]
    assert weights_of(small, 1) == [(2, 7, 9), (9,)]


def test_means_of_kept_units_are_folded_into_the_kernel_before() -> None:
    def make():
        x = image = Input((5, 8))
        x = layers.EinsumDense("abc,cde->abde", (5, 4, 7), bias_axes="de", activation="relu")(x)
        x = layers.Activation("tanh")(gate(axis=3)(gate(axis=2)(x)))
        return Model(image, layers.Dense(3)(layers.Flatten()(x)))

    small = pruned(make, units=[0])
    assert kinds(small) == ["EinsumDense", "Activation", "Flatten", "Dense"]


def test_a_bias_that_cannot_be_multiplied_gets_a_layer_behind() -> None:
    def make():
        x = image = Input((5, 8))
        x = layers.EinsumDense("abc,cde->abde", (5, 4, 7), bias_axes="e")(x)
        x = layers.Activation("tanh")(gate(axis=2)(x))
        return Model(image, layers.EinsumDense("abde,def->abf", (5, 9))(x))

    assert kinds(pruned(make)) == ["EinsumDense", "Rescaling", "Activation", "EinsumDense"]


def test_constants_make_a_bias_where_there_was_none() -> None:
    def make():
        x = image = Input((5, 8))
        x = gate(axis=2)(layers.EinsumDense("abc,cde->abde", (5, 4, 7))(x))
        x = layers.Activation("sigmoid")(x)  # removed heads hold 1/2
        return Model(image, layers.EinsumDense("abde,def->abf", (5, 9))(x))

    small = pruned(make)
    assert weights_of(small, 0) == [(8, 2, 7)]
    assert weights_of(small, 1) == [(2, 7, 9), (9,)]


def test_constants_lengthen_a_bias_that_was_too_short() -> None:
    def make():
        x = image = Input((5, 8))
        x = layers.Activation("sigmoid")(gate()(layers.Dense(6)(x)))
        x = layers.EinsumDense("abc,cde->abde", (5, 4, 7), bias_axes="e")(x)
        return Model(image, layers.Flatten()(x))

    assert weights_of(pruned(make), 0) == [(3, 4, 7), (4, 7)]


def test_constants_stay_where_no_bias_could_hold_them() -> None:
    def make():
        x = image = Input((5, 8))
        x = layers.Activation("sigmoid")(gate()(layers.Dense(6)(x)))
        return Model(image, layers.EinsumDense("abc,c->ab", (5,))(x))

    assert weights_of(pruned(make), 0) == [(6,)]


@pytest.mark.parametrize("rank", [3, 4])
def test_axes_under_an_ellipsis_pass(rank) -> None:
    def make():
        x = image = Input((6, 8) if rank == 3 else (6, 6, 8))
        x = layers.EinsumDense("ab...,bd->ad...", 6)(x)
        x = gate()(layers.Dense(5)(x))
        x = layers.EinsumDense("...x,xy->...y", 7, bias_axes="y", activation="relu")(x)
        x = gate(axis=1)(gate()(x))
        return Model(image, layers.Dense(3)(layers.Flatten()(x)))

    small = pruned(make)
    assert weights_of(small, 1) == [(3, 4), (4,)]
    assert small.layers[3].output.shape == ((None, 3, 4) if rank == 3 else (None, 3, 6, 4))


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((None, 4, 5, 6), [3], None),
        ((None, 4, 5, 4), [1], 3),
        ((None, 4, 5, 6), [1], None),
        ((None, 5, 5, 6), [2], 1),
        ((None, 5, 5, 1), [2, 3], 1),
        ((None, 5, 5, 2), [2, 3], None),
        ((None, None, 5, 2), [2], None),
        ((None, 5, 5), [], None),
    ],
)
def test_misplaced_bias(shape, axes, expected) -> None:
    assert misplaced(shape, axes) == expected


@pytest.mark.tensorflow
def test_keras_still_misplaces_biases() -> None:
    # If this fails, `misplaced` can go.
    bias = np.arange(3.0).reshape(3, 1, 1)
    assert not np.allclose(ops.add(np.zeros((2, 3, 5, 3)), bias), np.zeros((2, 3, 5, 3)) + bias)


def test_sizes_that_become_equal_do_not_misplace_the_bias() -> None:
    def make():
        x = image = Input((4, 8))
        x = layers.EinsumDense("abc,bd->adc", (9, 8), bias_axes="d")(layers.Dense(8)(x))
        x = gate(axis=1)(gate()(x))
        return Model(image, layers.Dense(3)(layers.Flatten()(x)))

    model = randomise(make(), drop=0.0)
    first, second = find_gates(model)
    drop_units(first, [1, 2, 3])
    drop_units(second, [1, 2, 3, 4])
    small, _ = assert_same_function(model)
    assert weights_of(small, 0) == [(4, 5), (5, 5)]


def reason(operation, shape=(5, 8)) -> str:
    image = Input(shape)
    (why,) = analyse(trace(Model(image, operation(image)))).opaque.values()
    return why


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (layers.EinsumDense("abc,cd->abd", (5, 4), activation=layers.ReLU()), "is a layer"),
        (layers.EinsumDense("abc,cd->ad", 4), "sums an axis"),
        (layers.EinsumDense("abc,cd->bad", (None, 4)), "moves the batch"),
        (layers.EinsumDense("abc,bd->adc", (8, 8), bias_axes="d"), "along another axis"),
    ],
)
def test_reasons_of_einsum_dense(layer, why) -> None:
    assert why in reason(layer)


def test_ellipsis_over_axes_that_keras_mixes_up() -> None:
    layer = layers.EinsumDense("...x,xy->...y", 4)
    assert "under its ellipsis" in reason(layer, (5, 6, 8))


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        (lambda x: ops.einsum("abc,adc", x, x), "not understood"),
        (lambda x: ops.einsum("abc,dbc->ad", x, x), "moves the batch"),
        (lambda x: ops.repeat(x, 2, axis=0), "the batch axis"),
        (lambda x: ops.repeat(x, 2), "flattens"),
    ],
)
def test_reasons_of_operations(operation, why) -> None:
    assert why in reason(operation)


def test_constant_operands_are_narrowed() -> None:
    matrix = np.random.default_rng(0).normal(size=(6, 7)).astype("float32")

    def make():
        x = image = Input((5, 8))
        x = gate()(ops.matmul(gate()(layers.Dense(6)(x)), matrix))
        return Model(image, layers.Dense(3)(x))

    small = pruned(make)
    (product,) = [op for op in trace(small).ops if op.operation.name.startswith("matmul")]
    assert product.args[1].shape == (3, 4)


def test_operands_agree_on_what_is_zero_in_one_of_them() -> None:
    def make():
        image = Input((5, 8))
        x, y = gate()(layers.Dense(6)(image)), layers.Dense(6)(image)
        return Model(image, ops.einsum("abc,adc->abd", x, y))

    small = pruned(make)
    assert kinds(small) == ["Dense", "Dense", "Einsum"]
    assert [each.units for each in small.layers if isinstance(each, layers.Dense)] == [3, 3]


def test_unequal_repetitions_become_a_take() -> None:
    def make():
        x = image = Input((8,))
        x = ops.repeat(layers.Dense(6)(x), 2, axis=1)
        return Model(image, layers.Dense(3)(gate()(x)))

    assert kinds(pruned(make, [0, 1, 2, 3])) == ["Dense", "Repeat", "Dense"]
    assert kinds(pruned(make, [0, 1, 2, 3, 5])) == ["Dense", "Take", "Dense"]
    assert kinds(pruned(make, [1, 3, 5, 7, 9, 11])) == ["Dense", "Dense"]


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (layers.EinsumDense("abc,cde->abde", (None, 4, 7)), 5 * 8 * 4 * 7),
        (layers.EinsumDense("...x,xy->...y", 7), 5 * 8 * 7),
        (layers.EinsumDense("abc,c->abc", (5, 8)), 5 * 8),
        (lambda x: ops.einsum("abc,adc->abd", x, x), 5 * 5 * 8),
        (lambda x: ops.matmul(x, np.ones((8, 7), "float32")), 5 * 8 * 7),
    ],
)
def test_macs(operation, expected) -> None:
    image = Input((5, 8))
    (op,) = trace(Model(image, operation(image))).ops
    assert macs(op) == expected


def test_macs_count_unknown_sizes_as_one() -> None:
    image = Input((None, 8))
    (op,) = trace(Model(image, layers.EinsumDense("abc,cd->abd", (None, 4))(image))).ops
    assert macs(op) == 8 * 4
