"""What of `keras.ops` between layers is physically removed, and what is refused."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import Input, Model, layers, ops

from keras_sbp.layers import find_gates
from keras_sbp.program import analyse, trace
from tests.pruning.oracle import assert_same_function, drop_units, gate, randomise
from tests.pruning.zoo import operations as zoo


def pruned(model, *dropped):
    """Prunes after each gate has dropped its units; checks that the function is the same."""
    randomise(model, drop=0.0)
    for each, units in zip(find_gates(model), dropped, strict=True):
        drop_units(each, units)
    return assert_same_function(model)[0]


def operations_of(model):
    """The names of the classes of all that is no layer, in order."""
    return [type(o).__name__ for o in model.operations if not isinstance(o, keras.layers.Layer)]


def layers_of(model):
    return [type(layer).__name__ for layer in model.operations if isinstance(layer, layers.Layer)]


def test_scales_pass_through_products_with_numbers() -> None:
    x = Input((5,))
    y = gate()(layers.Dense(6, activation="tanh", name="first")(x))
    y = ops.maximum(-(y * np.linspace(-1, 1, 6, dtype="float32")) / 3, 0.0)
    small = pruned(Model(x, layers.Dense(3)(y)), [1, 2])
    assert small.get_layer("first").units == 4
    assert operations_of(small) == ["Multiply", "Negative", "TrueDivide", "Maximum"]
    assert layers_of(small) == ["InputLayer", "Dense", "Dense"]


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x + 1,
        lambda x: 1 / x,
        lambda x: ops.maximum(x, 0.3),
        ops.square,
        ops.exp,
    ],
)
def test_scales_do_not_pass_through_other_functions(call) -> None:
    x = Input((5,))
    y = call(gate()(layers.Dense(6, activation="sigmoid")(x)))
    small = pruned(Model(x, layers.Dense(3)(y)), [])
    assert layers_of(small).count("Rescaling") == 1


@pytest.mark.parametrize(
    ("reduce", "settled"),
    [(ops.mean, 0), (ops.max, 0), (ops.std, 0), (ops.sum, 0), (ops.var, 1), (ops.prod, 1)],
)
def test_scales_pass_through_reductions(reduce, settled) -> None:
    x = Input((3, 5))
    y = reduce(gate()(layers.Dense(6, activation="sigmoid")(x)), axis=1)
    small = pruned(Model(x, layers.Dense(3)(y)), [2])
    assert layers_of(small).count("Rescaling") == settled


def test_a_zero_among_the_numbers_removes_the_unit() -> None:
    x = Input((5,))
    y = layers.Dense(6, activation="sigmoid", name="first")(x) * np.array([1, 0, 2, 0, 1, 1], "f4")
    small = pruned(Model(x, layers.Dense(3)(y)))
    assert small.get_layer("first").units == 4


def test_numbers_are_narrowed_and_keep_their_kind() -> None:
    x = Input((5,))
    y = gate()(layers.Dense(4, activation="relu")(x))
    y = ops.softplus(y + np.arange(4, dtype="float16")) - ops.convert_to_tensor(np.ones(4, "f4"))
    small = pruned(Model(x, layers.Dense(3)(y)), [0, 2])
    add, subtract = (o for o in small.operations if type(o).__name__ in ("Add", "Subtract"))
    ((_, row), _), ((_, ones), _) = (
        (node.arguments.args, node.arguments.kwargs)
        for o in (add, subtract)
        for node in o._inbound_nodes
    )
    assert row.dtype == "float16" and row.tolist() == [[1, 3]]
    assert keras.ops.is_tensor(ones) and tuple(ones.shape) == (1, 2)


def test_constant_branch_vanishes() -> None:
    x = Input((5,))
    dead = ops.sigmoid(gate(axis=())(layers.Dense(4)(x)))
    y = ops.tanh(layers.Dense(4)(x)) * dead + dead
    small = pruned(Model(x, layers.Dense(3)(y)), [0])
    assert operations_of(small) == ["Tanh"]
    assert layers_of(small) == ["InputLayer", "Dense", "Rescaling", "Rescaling", "Dense"]


def test_pieces_of_a_split_vanish() -> None:
    x = Input((5,))
    a, _, c = ops.split(layers.Dense(9, name="first")(x), 3, axis=-1)
    small = pruned(Model(x, layers.Dense(3)(a * ops.sigmoid(c))))
    assert small.get_layer("first").units == 6
    assert operations_of(small) == ["Split", "Sigmoid", "Multiply"]


def test_the_only_piece_needs_no_split() -> None:
    x = Input((5,))
    y = layers.Dense(9, name="first")(x)
    y = ops.unstack(ops.reshape(y, (-1, 3, 3)), axis=1)[1] + ops.split(y, 3, axis=-1)[1]
    small = pruned(Model(x, layers.Dense(3)(y)))
    assert small.get_layer("first").units == 3
    assert operations_of(small) == ["Reshape", "Unstack", "Add"]


def test_slices_leave_nothing_behind() -> None:
    x = Input((6, 5))
    y = layers.Dense(9, name="first")(x)
    y = ops.take(y[:, 1:3, 8:2:-2], [0, -1], axis=-1)
    small = pruned(Model(x, layers.Dense(3)(layers.Flatten()(y))))
    assert small.get_layer("first").units == 2
    assert operations_of(small) == ["GetItem"]


def test_concatenation_drops_operands() -> None:
    x = Input((5,))
    dead = gate()(layers.Dense(4, name="dead")(x))
    y = ops.concatenate([dead, layers.Dense(3)(x), ops.relu(layers.Dense(2)(x))], axis=1)
    small = pruned(Model(x, layers.Dense(3)(y)), range(4))
    assert "dead" not in [layer.name for layer in small.layers]
    assert operations_of(small) == ["Relu", "Concatenate"]


@pytest.mark.parametrize(("activation", "units"), [("relu", 5), ("sigmoid", 8)])
def test_sums_leave_zeros_out(activation: str, units: int) -> None:
    x = Input((6, 5))
    y = layers.Activation(activation)(gate()(layers.Dense(8, name="first")(x)))
    small = pruned(Model(x, layers.Dense(3)(ops.sum(y, axis=-1))), [0, 3, 4])
    assert small.get_layer("first").units == units


def test_padding_that_nobody_needs_is_not_made() -> None:
    x = Input((4, 5))
    y = ops.pad(layers.Dense(4)(x), [[0, 0], [0, 0], [2, 3]])
    small = pruned(Model(x, layers.Dense(3)(y[..., 2:])))
    assert operations_of(small) == []
    y = ops.pad(layers.Dense(4)(x), [[0, 0], [0, 0], [2, 3]], constant_values=1.5)
    small = pruned(Model(x, layers.Dense(3)(ops.softmax(y[..., 1:-1]))))
    (pad,) = [o for o in small.operations if type(o).__name__ == "Pad"]
    assert [tuple(width) for width in pad.pad_width] == [(0, 0), (0, 0), (1, 2)]


def test_windows_in_the_batch_keep_the_channels_apart() -> None:
    x = Input((4, 6, 5))
    y = gate()(layers.Dense(8, name="first")(x))
    y = ops.reshape(y, (-1, 2, 2, 3, 2, 8))
    y = ops.reshape(ops.transpose(y, (0, 1, 3, 2, 4, 5)), (-1, 4, 8))
    small = pruned(Model(x, layers.Dense(3)(y)), [1, 2, 3])
    assert small.get_layer("first").units == 5


def test_operations_that_are_called_twice_get_two_names() -> None:
    inner = Input((6,))
    block = Model(inner, ops.sigmoid(inner) + 1, name="block")
    x = Input((5,))
    y = gate()(layers.Dense(6)(x))
    small = pruned(Model(x, layers.Dense(3)(block(layers.Dense(6)(block(y))))), [2])
    assert operations_of(small) == ["Sigmoid", "Add"] * 2


VARIABLE = keras.Variable(np.ones(6, "float32"))


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda x: x + VARIABLE, "it reads a variable"),
        (lambda x: x + np.ones((2, 4, 4, 6), "float32"), "its constant follows the batch axis"),
        (lambda x: x * ops.mean(x, axis=(0, 1)), "it reduces the batch"),
        (lambda x: ops.reshape(x, (-1, 3)), "its axes cannot be followed"),
        (lambda x: ops.transpose(x), "it moves or changes the batch axis"),
        (lambda x: x[0], "it moves or changes the batch axis"),
        (lambda x: ops.expand_dims(x, 0), "it moves or changes the batch axis"),
        (lambda x: ops.concatenate([x, x], axis=0), "the sizes along its axis are unknown"),
        (lambda x: ops.split(x, 2, axis=0)[0], "it moves or changes the batch axis"),
        (lambda x: ops.stack([x, x]), "it moves or changes the batch axis"),
        (lambda x: ops.flip(x), "it moves or changes the batch axis"),
        (lambda x: ops.take(x, [[0, 1]], axis=1), "its positions do not follow one axis"),
        (lambda x: ops.softmax(x, axis=0), "its axes include the batch"),
        (lambda x: ops.pad(x, 1), "it moves or changes the batch axis"),
        (lambda x: ops.tile(x, (2, 1, 1, 1)), "it moves or changes the batch axis"),
        (lambda x: ops.max(x, axis=1, initial=0.0), "it starts from a fixed number"),
    ],
)
def test_refusals(call, reason: str) -> None:
    x = Input((4, 4, 6), batch_size=2)
    model = Model(x, call(layers.ReLU()(x)))
    assert reason in analyse(trace(model)).opaque.values()


@pytest.mark.parametrize(
    "topology",
    [
        zoo.split_and_joined_branches,
        zoo.slicing,
        zoo.slice_that_becomes_uneven,
        zoo.constants_of_many_kinds,
        zoo.windows_in_the_batch,
        zoo.stacked_and_unstacked,
        zoo.padded_channels,
    ],
)
def test_pruned_models_save_and_load(topology, tmp_path) -> None:
    model = randomise(topology(), drop=0.0)
    for each in find_gates(model):
        drop_units(each, list(range(1, each.units, 2)))
    small, _ = assert_same_function(model)
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    x = np.random.default_rng(0).normal(size=(3, *model.input_shape[1:])).astype("float32")
    np.testing.assert_array_equal(small(x), loaded(x))


def test_names_of_loaded_operations_do_not_clash(tmp_path) -> None:
    """A loaded model brings names that a fresh process would give to new operations."""
    keras.backend.clear_session()
    model = randomise(zoo.slice_that_becomes_uneven(), drop=0.0)
    drop_units(find_gates(model)[0], list(range(1, 14, 2)))
    model.save(tmp_path / "model.keras")
    keras.backend.clear_session()
    small, _ = assert_same_function(keras.models.load_model(tmp_path / "model.keras"))
    assert operations_of(small).count("Take") == 2
