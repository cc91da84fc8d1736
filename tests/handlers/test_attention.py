"""Heads and widths of attention go physically; where they cannot, a reason says why."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import Input, Model, layers, ops

from keras_sbp._keras import nn_ops
from keras_sbp.program import analyse, macs, trace
from keras_sbp.pruning import prune
from tests.pruning.oracle import assert_same_function, drop_units, find_gates, gate, randomise

LENGTH, HEADS, WIDTH = 5, 4, 6


def heads_of(x, heads=HEADS, width=WIDTH):
    return layers.EinsumDense("abc,cde->abde", (x.shape[1], heads, width), bias_axes="de")(x)


def attention(gates, groups=HEADS, value_width=WIDTH, **kwargs):
    """A model whose gates, by name ("query"...) and axis, drop the given units."""

    def gated(name, x):
        for axis in (2, 3):
            if (name, axis) in gates:
                x = gate(axis=axis, name=f"{name}_{axis}")(x)
        return x

    image = Input((LENGTH, 7))
    q = gated("query", heads_of(image))
    k = gated("key", heads_of(image, groups))
    v = gated("value", heads_of(image, groups, value_width))
    z = gated("output", ops.dot_product_attention(q, k, v, **kwargs))
    z = layers.EinsumDense("abcd,cde->abe", (LENGTH, 8), bias_axes="e")(z)
    model = randomise(Model(image, z), drop=0.0)
    for each in find_gates(model):
        name, axis = each.name.rsplit("_", 1)
        drop_units(each, gates[name, int(axis)])
    return model


def pruned(*args, **kwargs) -> keras.Model:
    return assert_same_function(attention(*args, **kwargs))[0]


def projections(model: keras.Model) -> list[tuple[int, ...]]:
    """Kernel shapes of query, key, value and output."""
    found = {}
    dense = [each for each in model.layers if isinstance(each, layers.EinsumDense)]
    for each in dense:
        found[each.name] = tuple(each.kernel.shape)
    return [found[name] for name in sorted(found, key=lambda n: (len(n), n))]


def kinds(model: keras.Model) -> list[str]:
    return [type(op.operation).__name__ for op in trace(model).ops]


@pytest.fixture(autouse=True)
def _fresh_names() -> None:
    keras.backend.clear_session()


def test_dead_heads_go_from_query_key_value_and_output() -> None:
    small = pruned({("output", 2): [0, 2, 3]})
    assert projections(small) == [(7, 1, 6), (7, 1, 6), (7, 1, 6), (1, 6, 8)]
    assert kinds(small).count("DotProductAttention") == 1
    assert len(kinds(small)) == 5


def test_heads_that_are_dead_in_the_value_go_everywhere() -> None:
    small = pruned({("value", 2): [1]})
    assert projections(small) == [(7, 3, 6), (7, 3, 6), (7, 3, 6), (3, 6, 8)]


def test_heads_that_are_dead_in_the_query_stay() -> None:
    # Such a head still averages the values.
    small = pruned({("query", 2): [1]})
    assert projections(small) == [(7, 4, 6), (7, 4, 6), (7, 4, 6), (4, 6, 8)]


def test_dead_width_of_query_or_key_goes_from_both() -> None:
    gates = {("query", 3): [0, 1], ("key", 3): [1, 5], ("output", 3): [0, 1, 2]}
    small = pruned(gates)
    assert projections(small) == [(7, 4, 3), (7, 4, 3), (7, 4, 3), (4, 3, 8)]
    (op,) = [op for op in trace(small).ops if isinstance(op.operation, nn_ops.DotProductAttention)]
    assert op.kwargs["scale"] == pytest.approx(1 / np.sqrt(WIDTH))


def test_a_given_scale_stays() -> None:
    small = pruned({("query", 3): [0], ("value", 3): [3]}, scale=0.7)
    (op,) = [op for op in trace(small).ops if isinstance(op.operation, nn_ops.DotProductAttention)]
    assert op.kwargs["scale"] == 0.7


def test_a_scale_that_keras_finds_itself_is_left_to_it() -> None:
    small = pruned({("output", 2): [0]})
    (op,) = [op for op in trace(small).ops if isinstance(op.operation, nn_ops.DotProductAttention)]
    assert op.kwargs["scale"] is None


def test_at_least_one_unit_of_width_stays() -> None:
    gates = {("query", 3): list(range(WIDTH)), ("value", 3): [0]}
    assert projections(pruned(gates)) == [(7, 4, 1), (7, 4, 1), (7, 4, 5), (4, 5, 8)]


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.3}])
def test_unequal_widths_are_written_out_and_can_be_saved(options, tmp_path) -> None:
    model = attention({("query", 3): [0, 1], ("output", 2): [2]}, **options)
    small, _ = assert_same_function(model)
    assert projections(small) == [(7, 3, 4), (7, 3, 4), (7, 3, 6), (3, 6, 8)]
    assert "DotProductAttention" not in kinds(small)
    assert small.output_shape == (None, LENGTH, 8)
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    x = np.random.default_rng(0).normal(size=(2, LENGTH, 7)).astype("float32")
    assert np.allclose(again(x), model(x, training=False), atol=1e-5)


@pytest.mark.parametrize(
    ("dropped", "left", "copies"),
    [
        ([0, 1], 2, 0),  # the first key head loses both query heads
        ([0, 2, 4], 3, 0),  # every key head keeps one
        ([0], 3, 2),  # one key head keeps one, the others two
        ([0, 1, 2, 3, 4], 1, 0),
        ([0, 1, 2, 3], 1, 2),  # TensorFlow cannot share a single key head
    ],
)
def test_a_key_head_goes_with_the_last_of_its_query_heads(dropped, left, copies) -> None:
    image = Input((LENGTH, 7))
    q, k, v = heads_of(image, 6), heads_of(image, 3), heads_of(image, 3)
    z = gate(axis=2)(ops.dot_product_attention(q, k, v))
    z = layers.EinsumDense("abcd,cde->abe", (LENGTH, 8), bias_axes="e")(z)
    model = randomise(Model(image, z), drop=0.0)
    drop_units(find_gates(model)[0], dropped)
    small, _ = assert_same_function(model)
    heads = 6 - len(dropped)
    assert projections(small) == [(7, heads, 6), (7, left, 6), (7, left, 6), (heads, 6, 8)]
    assert kinds(small).count("Take") == copies


@pytest.mark.parametrize("shape", [(HEADS, LENGTH, LENGTH), (1, LENGTH), (LENGTH,)])
def test_a_mask_is_sliced_where_it_has_the_heads(shape) -> None:
    mask = np.random.default_rng(0).random(shape) < 0.7
    mask[..., 0] = True
    small = pruned({("output", 2): [1]}, mask=mask)
    (op,) = [op for op in trace(small).ops if isinstance(op.operation, nn_ops.DotProductAttention)]
    assert op.kwargs["mask"].shape == ((3, *shape[1:]) if shape[0] == HEADS else shape)


def test_constant_heads_pass_without_a_mask_only() -> None:
    def left(**kwargs):
        image = Input((LENGTH, 7))
        v = layers.Activation("sigmoid")(gate(axis=2)(heads_of(image)))
        z = ops.dot_product_attention(heads_of(image), heads_of(image), v, **kwargs)
        model = Model(image, layers.EinsumDense("abcd,cde->abe", (LENGTH, 8))(z))
        randomise(model, drop=0.0)
        drop_units(find_gates(model)[0], [0, 1])
        small, _ = assert_same_function(model)
        return [shape[1] for shape in projections(small)[:3]]

    assert left() == [2, 2, 2]
    assert left(is_causal=True) == [2, 2, 2]
    assert left(mask=np.tri(LENGTH, LENGTH, -1, dtype=bool)) == [4, 4, 4]


def test_rows_that_nobody_needs_are_not_asked() -> None:
    image = Input((LENGTH, 7))
    q = layers.EinsumDense("abc,bdce->adce", (LENGTH, 7, 2))(image)
    q = layers.EinsumDense("adce,cfe->adfe", (LENGTH, HEADS, 2))(q)
    z = ops.dot_product_attention(q, heads_of(image, width=2), heads_of(image, width=2))
    z = layers.Flatten()(gate(axis=1)(z))
    model = randomise(Model(image, layers.Dense(3)(z)), drop=0.0)
    drop_units(find_gates(model)[0], [0, 2, 4])
    small, _ = assert_same_function(model)
    (op,) = [op for op in trace(small).ops if isinstance(op.operation, nn_ops.DotProductAttention)]
    assert [x.shape[1] for x in op.inputs] == [2, LENGTH, LENGTH]


def test_macs() -> None:
    image, other = Input((LENGTH, HEADS, WIDTH)), Input((9, 2, WIDTH))
    program = trace(Model([image, other], ops.dot_product_attention(image, other, other)))
    assert macs(program.ops[0]) == LENGTH * 9 * HEADS * 2 * WIDTH


def reason(model: keras.Model) -> str:
    (why,) = analyse(trace(model)).opaque.values()
    return why


def test_reasons() -> None:
    image = Input((LENGTH, HEADS, WIDTH))
    unknown = Input((LENGTH, None, WIDTH))
    mask = Input((LENGTH,), dtype="bool")
    attend = ops.dot_product_attention
    assert "unknown" in reason(Model(unknown, attend(unknown, unknown, unknown)))
    assert "mask or bias" in reason(Model([image, mask], attend(image, image, image, mask=mask)))


def between_gates(layer, *, to_itself=False, mask=False, **kwargs):
    """A model with gates before and behind an attention layer."""
    image, memory = Input((LENGTH, 8)), Input((7, 8))
    x = gate()(layers.Dense(8)(image))
    y = x if to_itself else gate()(layers.Dense(8)(memory))
    inputs = [image] if to_itself else [image, memory]
    if mask:
        inputs.append(Input((LENGTH, y.shape[1]), dtype="bool"))
        kwargs["attention_mask"] = inputs[-1]
    z = layer(x, y, **kwargs)
    z, *scores = z if isinstance(z, tuple | list) else [z]
    model = Model(inputs, [layers.Dense(3)(layers.Flatten()(gate()(z))), *scores])
    model = randomise(model, drop=0.0)
    for each in find_gates(model):
        drop_units(each, [0, 1, 2])
    return model


CALLS = {
    "cross": {},
    "self": {"to_itself": True},
    "mask": {"mask": True},
    "causal": {"to_itself": True, "use_causal_mask": True},
    "causal and mask": {"to_itself": True, "mask": True, "use_causal_mask": True},
    "scores": {"return_attention_scores": True},
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ["multi-head", "grouped"])
def test_attention_layers_are_unfolded_and_pruned(kind, call) -> None:
    check_attention_layer(kind, call, dropout=0.0)


@pytest.mark.parametrize("call", ["cross", "self", "scores"])
@pytest.mark.parametrize("kind", ["multi-head", "grouped"])
def test_attention_layers_with_dropout(kind, call) -> None:
    check_attention_layer(kind, call, dropout=0.1)


def check_attention_layer(kind: str, call: str, dropout: float) -> None:
    if kind == "grouped":
        layer = layers.GroupQueryAttention(3, 4, 2, dropout=dropout)
    else:
        layer = layers.MultiHeadAttention(4, 3, dropout=dropout)
    model = between_gates(layer, **CALLS[call])
    _, report = prune(model, strict=True)
    assert report.macs_after < 0.8 * report.macs_before
    small, _ = assert_same_function(model)
    groups = 2 if kind == "grouped" else 4
    kernels = [tuple(w.shape) for w in small.weights if len(w.shape) == 3]
    assert sorted(kernels) == sorted([(5, 4, 3), (5, groups, 3), (5, groups, 3), (4, 3, 5)])


def test_luong_attention() -> None:
    image, memory = Input((LENGTH, 8)), Input((7, 6))
    x, y = gate()(layers.Dense(8)(image)), gate()(layers.Dense(8)(memory))
    z = layers.Attention()([x, y])
    model = Model([image, memory], layers.Dense(3)(layers.Flatten()(gate()(z))))
    randomise(model, drop=0.0)
    for number, each in enumerate(find_gates(model)):
        drop_units(each, [0, 1, 2] if number < 2 else [0, 1, 2, 3])
    small, _ = assert_same_function(model)
    assert small.count_params() < model.count_params()
