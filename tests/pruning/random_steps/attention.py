"""EinsumDense, products of tensors, attention over heads, and repetition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import layers, ops

from tests.pruning.oracle import gate
from tests.pruning.random_steps.registry import step

if TYPE_CHECKING:
    from tests.pruning.random_graphs import Author

ACTIVATIONS = [None, None, "relu", "gelu", "tanh", "softplus", "softmax"]

# Equation, new letters, letters that a bias may lie along.
EQUATIONS = {
    2: [("ab,bc->ac", "c"), ("ab,b->ab", ""), ("...x,xy->...y", "y")],
    3: [
        ("abc,cd->abd", "d"),
        ("abc,bd->adc", "d"),
        ("abc,bcd->ad", "d"),
        ("abc,bcd->abd", "d"),
        ("abc,c->abc", ""),
        ("abc,bc->ab", ""),
        ("...x,xy->...y", "y"),
        ("ab...,bc->ac...", "c"),
    ],
    4: [
        ("abcd,cde->abe", "e"),
        ("abcd,de->abce", "e"),
        ("abcd,cde->abce", "e"),
        ("abcd,bcde->ae", "e"),
        ("abcd,ecd->aeb", "e"),
        ("abcd,bd->adbc", ""),
    ],
}


@step(2, 3, 4)
def einsum_dense(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    equation, new = author.one_of(EQUATIONS[len(x.shape)])
    terms, output = equation.split("->")
    inputs = terms.split(",")[0]
    sizes = dict(zip(inputs, x.shape, strict=False)) | {a: author.count() for a in new}
    if "..." in equation:
        output = output.replace("...", "") if inputs.startswith("...") else output[1:-3]
        shape = [sizes[a] for a in new]
        letters = new
    else:
        shape = [sizes[a] for a in output[1:]]
        letters = output[1:]
    bias = "".join(a for a in letters if author.chance(60))
    layer = layers.EinsumDense(
        equation, shape, bias_axes=bias or None, activation=author.one_of(ACTIVATIONS)
    )
    y = author.remember(layer, x)
    return gate(axis=author.one_of(range(1, len(y.shape))))(y) if author.chance(65) else y


@step(3)
def to_heads(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    return _gated(author, _heads(author, x, author.one_of([1, 2, 4]), author.one_of([2, 3])))


@step(3)
def attention(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    heads, groups = author.one_of([(1, 1), (2, 2), (4, 4), (4, 2), (6, 3)])
    width = author.one_of([2, 3, 4])
    query = _gated(author, _heads(author, x, heads, width))
    key = _gated(author, _heads(author, x, groups, width))
    value = _gated(author, _heads(author, x, groups, width))
    if heads != groups and author.chance(60):
        key, value = (ops.repeat(part, heads // groups, axis=2) for part in (key, value))
    options = {"is_causal": author.chance(30), "scale": author.one_of([None, 0.5])}
    length = x.shape[1]
    rng = np.random.default_rng(author.count())
    if author.chance(30):
        # Every row sees itself.
        shape = (author.one_of([1, heads]), length, length)
        options["mask"] = (rng.random(shape) < 0.6) | np.eye(length, dtype=bool)
    if author.chance(30):
        bias = rng.normal(size=(1, author.one_of([1, heads]), length, length))
        options["bias"] = bias.astype(keras.config.floatx())
    z = ops.dot_product_attention(query, key, value, **options)
    z = _gated(author, z)
    join = layers.EinsumDense("abcd,cde->abe", (length, author.count()), bias_axes="e")
    return author.remember(join, z)


@step(3)
def product_of_tensors(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    size = author.count()
    query, key, value = (author.gate(layers.Dense(size)(x)) for _ in range(3))
    if author.chance(50):
        scores = ops.einsum("abc,adc->abd", query, key)
    else:
        scores = ops.matmul(query, layers.Permute((2, 1))(key))
    # Cubes of large numbers would lose the digits that are to be compared.
    scores = layers.Rescaling(0.3)(scores)
    weights = layers.Softmax()(scores) if author.chance(70) else ops.tanh(scores)
    if author.chance(50):
        return ops.matmul(weights, value)
    return ops.einsum("abd,adc->abc", weights, value)


@step(2, 3)
def product_with_a_constant(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    size = author.count()
    rng = np.random.default_rng(size)
    matrix = rng.normal(size=(x.shape[-1], size)) * (rng.random(size) < 0.8)
    y = ops.matmul(x, matrix.astype(keras.config.floatx()))
    return author.gate(y) if author.chance(60) else y


@step(2, 3, 4)
def repeat(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    axis = author.one_of(range(1, len(x.shape)))
    if x.shape[axis] > 12:
        return x
    unequal = np.array([author.one_of([1, 1, 2]) for _ in range(x.shape[axis])])
    y = ops.repeat(x, author.one_of([2, unequal]), axis=axis)
    return gate(axis=axis)(y) if author.chance(60) else y


def _heads(author: Author, x: keras.KerasTensor, heads: int, width: int) -> keras.KerasTensor:
    bias = author.one_of(["de", "e", None])
    shape = (x.shape[1], heads, width)
    y = author.remember(layers.EinsumDense("abc,cde->abde", shape, bias_axes=bias), x)
    return author.shift(gate(axis=2)(y)) if author.chance(20) else y


def _gated(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    axis = author.one_of([None, 2, 3, 3, (), 1])
    return x if axis is None else gate(axis=axis)(x)
