"""EinsumDense, products of tensors, and attention with gates on heads and widths."""

from __future__ import annotations

import keras
import numpy as np
from keras import Input, Model, layers, ops

from tests.pruning.oracle import gate
from tests.pruning.zoo.registry import topology

LENGTH, HEADS, WIDTH = 5, 4, 6


def heads_of(x, heads=HEADS, width=WIDTH, **kwargs):
    """Projects (batch, length, features) onto heads."""
    kwargs = {"bias_axes": "de"} | kwargs
    return layers.EinsumDense("abc,cde->abde", (x.shape[1], heads, width), **kwargs)(x)


def joined(x, units=8, **kwargs):
    kwargs = {"bias_axes": "e"} | kwargs
    return layers.EinsumDense("abcd,cde->abe", (x.shape[1], units), **kwargs)(x)


def closed(inputs, x):
    """A model that ends in features of its own for every position, where they are known."""
    if x.shape[1] is None:
        x = layers.GlobalAveragePooling1D()(x)
    return Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def tokens(features=7):
    return Input((LENGTH, features))


@topology
def projections_onto_heads_and_back():
    x = image = tokens()
    x = gate(axis=3)(gate(axis=2)(heads_of(x, activation="relu")))
    x = gate()(joined(x, activation="gelu"))
    return closed(image, x)


@topology
def einsum_dense_with_ellipsis():
    x = image = Input((4, 4, 6))
    x = gate()(layers.EinsumDense("...x,xy->...y", 8, bias_axes="y", activation="relu")(x))
    x = gate()(layers.EinsumDense("ab...,bc->ac...", (7,), bias_axes="c")(x))
    x = gate(axis=1)(x)
    return closed(image, layers.EinsumDense("abcx,xy->abcy", (7, 4, 6))(x))


@topology
def constants_into_the_bias_of_einsum_dense():
    x = image = tokens()
    x = gate(axis=2)(heads_of(x))
    x = layers.Activation("softplus")(x)  # removed heads hold log 2
    x = gate()(joined(x, bias_axes=None))
    x = layers.Activation("sigmoid")(gate()(heads_of(x, bias_axes="e")))
    x = layers.EinsumDense("abde,efg->abdfg", (LENGTH, HEADS, 3, 5), bias_axes="g")(x)
    return closed(image, gate(axis=3)(x))


@topology
def a_kernel_for_each_head():
    x = image = tokens()
    x = gate(axis=2)(heads_of(x, activation="softplus"))
    x = layers.EinsumDense("abde,def->abdf", (LENGTH, HEADS, 5), bias_axes="df")(gate()(x))
    x = gate()(layers.Activation("sigmoid")(x))
    x = layers.EinsumDense("abdf,df->abdf", (LENGTH, HEADS, 5), bias_axes="f")(x)
    return closed(image, gate(axis=2)(layers.EinsumDense("abdf,f->abd", (LENGTH, HEADS))(x)))


@topology
def kernel_axes_in_another_order():
    x = image = tokens()
    x = gate(axis=1)(layers.EinsumDense("abc,edc->adbe", (4, LENGTH, 6), bias_axes="ed")(x))
    x = layers.EinsumDense("adbe,fed->abf", (LENGTH, 8), bias_axes="bf")(gate()(x))
    return closed(image, gate()(x))


@topology
def einsum_dense_over_positions():
    x = image = tokens()
    x = gate(axis=2)(gate(axis=1)(layers.EinsumDense("abc,bd->adc", (6, 7), bias_axes="d")(x)))
    x = layers.EinsumDense("adc,ce->ade", (6, 5), activation="relu")(x)
    x = gate(axis=1)(x)
    return closed(image, gate()(layers.EinsumDense("ade,ef->adf", (6, 4), bias_axes="f")(x)))


@topology
def einsum_dense_with_softmax():
    x = image = tokens()
    x = gate(axis=2)(heads_of(x, activation="softmax"))
    x = gate()(joined(gate()(heads_of(joined(x)))))
    return closed(image, layers.EinsumDense("abc,cd->abd", (LENGTH, 4), activation="softmax")(x))


@topology
def shared_einsum_dense():
    image = tokens()
    project = layers.EinsumDense("abc,cde->abde", (LENGTH, HEADS, WIDTH), bias_axes="de")
    join = layers.EinsumDense("abcd,cde->abe", (LENGTH, 7), bias_axes="e")
    x = layers.Activation("softplus")(gate()(layers.Dense(7)(image)))
    x = join(gate(axis=2)(project(x)))
    x = join(gate(axis=3)(project(gate()(x))))
    return closed(image, gate()(layers.Dense(6)(x)))


@topology
def shared_einsum_dense_on_other_lengths():
    image = tokens()
    project = layers.EinsumDense("abc,cde->abde", (None, HEADS, WIDTH), bias_axes="de")
    long = gate(axis=2)(project(image))
    short = gate(axis=2)(project(layers.Cropping1D(1)(image)))
    means = [layers.GlobalAveragePooling1D()(joined(y)) for y in (long, short)]
    return closed(image, gate()(layers.Concatenate()(means)))


def attention(x, y=None, gates=("output_heads",), groups=HEADS, value_width=WIDTH, **kwargs):
    """Dot-product attention with gates where asked: "query_width", "output_heads", ..."""
    y = x if y is None else y
    sources = {"query": x, "key": y, "value": y}
    parts = {}
    for name, source in sources.items():
        heads = HEADS if name == "query" else groups
        width = value_width if name == "value" else WIDTH
        parts[name] = heads_of(source, heads, width)
        for axis, kind in ((2, "heads"), (3, "width")):
            if f"{name}_{kind}" in gates:
                parts[name] = gate(axis=axis)(parts[name])
    z = ops.dot_product_attention(**parts, **kwargs)
    for axis, kind in ((2, "heads"), (3, "width"), (1, "rows")):
        if f"output_{kind}" in gates:
            z = gate(axis=axis)(z)
    return gate()(joined(z))


def transformer(inputs, gates, **kwargs):
    x = inputs if isinstance(inputs, list) else [inputs]
    return closed(inputs, attention(x[0], x[-1], gates, **kwargs))


@topology
def attention_with_gated_heads():
    return transformer(tokens(), ("output_heads",))


@topology
def attention_with_gated_heads_and_widths():
    return transformer(tokens(), ("query_width", "output_heads", "output_width"))


@topology
def attention_with_gated_query_and_key_width():
    return transformer(tokens(), ("query_width", "key_width"), scale=0.3)


@topology
def attention_with_gated_value():
    return transformer([tokens(), Input((8, 5))], ("value_heads", "value_width"))


@topology
def attention_with_gated_query_heads():
    return transformer(tokens(), ("query_heads", "query_width"))


@topology
def causal_attention():
    gates = ("query_width", "output_heads", "output_rows")
    return transformer(tokens(), gates, is_causal=True)


@topology
def causal_attention_over_unknown_lengths():
    x = image = Input((None, 7))
    return closed(image, attention(x, gates=("query_width", "output_heads"), is_causal=True))


@topology
def attention_with_gated_rows():
    mask = np.tri(LENGTH, LENGTH, 2, dtype=bool)
    return transformer(tokens(), ("output_rows", "output_heads"), mask=mask)


@topology
def attention_with_bias_for_each_head():
    bias = np.random.default_rng(0).normal(size=(1, HEADS, LENGTH, LENGTH))
    bias = bias.astype(keras.config.floatx())
    return transformer(tokens(), ("output_heads", "query_width"), bias=bias)


@topology
def attention_with_bias_from_an_input():
    x, bias = tokens(), Input((HEADS, LENGTH, LENGTH))
    z = attention(x, gates=("query_width", "output_heads", "output_rows"), bias=bias)
    return closed([x, bias], z)


@topology
def attention_with_mask_from_an_input():
    x, mask = tokens(), Input((1, 1, LENGTH), dtype="bool")
    z = attention(x, gates=("query_width", "output_heads"), mask=mask)
    return closed([x, mask], z)


@topology
def constant_heads_through_attention():
    image = tokens()
    q, k = heads_of(image), heads_of(image)
    v = layers.Activation("sigmoid")(gate(axis=2)(heads_of(image)))
    x = joined(ops.dot_product_attention(q, k, v))
    mask = np.tri(LENGTH, LENGTH, dtype=bool)
    v = layers.Activation("sigmoid")(gate(axis=2)(heads_of(x)))
    return closed(image, gate()(joined(ops.dot_product_attention(q, k, v, mask=mask))))


@topology
def key_heads_that_several_query_heads_share():
    return transformer(tokens(), ("output_heads", "query_width"), groups=2)


@topology
def key_heads_shared_where_widths_differ():
    # Written out, attention cannot share heads.
    return transformer(tokens(), ("output_width", "value_width"), groups=2)


@topology
def grouped_query_attention_by_repeat():
    image = tokens()
    q, k, v = heads_of(image), heads_of(image, 2), heads_of(image, 2)
    k, v = (ops.repeat(x, 2, axis=2) for x in (gate()(k), v))
    z = gate(axis=2)(ops.dot_product_attention(q, k, v))
    return closed(image, gate()(joined(gate()(z))))


@topology
def repeat_of_features():
    x = image = tokens()
    x = ops.repeat(gate()(layers.Dense(6)(x)), 3, axis=2)
    x = gate()(layers.Activation("sigmoid")(x))
    x = ops.repeat(gate()(layers.Dense(4)(x)), np.array([3, 1, 2, 2]), axis=-1)
    x = ops.repeat(gate(axis=1)(gate()(x)), 2, axis=1)
    return closed(image, x)


@topology
def attention_written_with_einsum():
    image = tokens()
    q, k, v = (heads_of(image) for _ in range(3))
    scores = ops.einsum("aecd,abcd->acbe", k, gate()(q))
    scores = layers.Softmax()(scores)
    z = gate()(gate(axis=2)(ops.einsum("acbe,aecd->abcd", scores, v)))
    return closed(image, gate()(joined(z)))


@topology
def attention_written_with_matmul():
    image = tokens()
    q, k, v = (gate()(layers.Dense(8)(image)) for _ in range(3))
    scores = layers.Softmax()(ops.matmul(q, layers.Permute((2, 1))(k)))
    return closed(image, gate()(layers.Dense(6)(gate()(ops.matmul(scores, v)))))


@topology
def products_that_broadcast():
    image = tokens()
    x = layers.Permute((2, 1, 3))(heads_of(image))
    y = layers.Reshape((1, WIDTH, LENGTH))(layers.Dense(WIDTH)(image))
    z = ops.matmul(gate(axis=1)(gate()(x)), y)
    return closed(image, gate()(layers.Dense(6)(gate(axis=1)(z))))


@topology
def products_with_constants():
    rng = np.random.default_rng(0)
    x = image = tokens()
    x = gate()(layers.Dense(8)(x))
    weights = rng.normal(size=(8, 6)).astype(keras.config.floatx())
    weights[:, 2] = 0
    x = layers.Activation("sigmoid")(gate()(ops.matmul(x, weights)))
    filters = rng.normal(size=(6, 5, 4)).astype(keras.config.floatx())
    x = ops.einsum("abc,cde->abde", gate()(x), filters)
    return closed(image, gate()(layers.Dense(4)(gate(axis=2)(x))))


@topology
def product_of_a_tensor_with_itself():
    x = image = tokens()
    x = gate()(layers.Dense(8)(x))
    scores = gate()(ops.einsum("abc,adc->abd", x, x))
    return closed(image, layers.Dense(4)(scores))
