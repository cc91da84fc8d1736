"""Operators and `keras.ops` on Keras tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import layers, ops

from tests.pruning.oracle import gate
from tests.pruning.random_steps.registry import step

if TYPE_CHECKING:
    from tests.pruning.random_graphs import Author

UNARY = [
    ops.abs,
    ops.relu,
    ops.relu6,
    ops.sigmoid,
    ops.silu,
    ops.sin,
    ops.softplus,
    ops.square,
    ops.tanh,
    keras.activations.relu,
    lambda x: -x,
    lambda x: ops.clip(x, -0.5, 1.0),
    lambda x: ops.leaky_relu(x, 0.3),
    lambda x: ops.sqrt(ops.abs(x) + 0.1),
    lambda x: ops.where(x > 0.2, x, ops.expm1(x)),
    lambda x: x * ops.relu6(x + 3) / 6,
]


def numbers(author: Author, x: keras.KerasTensor) -> Any:
    """One number, or some along an axis of x or two; none is 0, for divisions."""
    if author.chance(40):
        return author.one_of([-0.7, 0.5, 2])
    shape = [1, *x.shape[1:]]
    for axis in range(1, len(shape)):
        if author.chance(50) and axis < len(shape) - 1:
            shape[axis] = 1
    if author.chance(30):
        shape[-1] = 1
    rng = np.random.default_rng(author.random.randrange(1000))
    array = rng.uniform(0.3, 1.2, shape) * rng.choice([-1, 1], shape)
    array = array.astype(keras.config.floatx())
    return ops.convert_to_tensor(array) if author.chance(30) else array


@step(2, 3, 4)
def with_numbers(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    c = numbers(author, x)
    return author.one_of(
        [
            lambda: x + c,
            lambda: ops.subtract(c, x),
            lambda: x - c,
            lambda: x * c,
            lambda: ops.multiply(c, x),
            lambda: x / c,
            lambda: ops.maximum(x, c),
            lambda: ops.minimum(c, x),
            lambda: ops.maximum(x, 0.0),
            lambda: ops.where(c > 0, x, 0.5),
        ]
    )()


@step(2, 3, 4)
def unary(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    return author.one_of(UNARY)(x)


@step(2, 3, 4)
def two_tensors(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    y = author.like(x)
    if author.chance(30):
        y = author.one_of(UNARY)(y)
    if len(x.shape) > 2 and author.chance(40):
        y = ops.mean(y, axis=author.one_of([1, len(x.shape) - 1]), keepdims=True)
    return author.one_of(
        [
            lambda: x + y,
            lambda: y - x,
            lambda: x * y,
            lambda: x * ops.sigmoid(y),
            lambda: x / (ops.abs(y) + 0.5),
            lambda: ops.maximum(x, y),
            lambda: ops.logaddexp(x, y),
        ]
    )()


@step(2, 3, 4)
def split(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    axis = author.random.randrange(1, len(x.shape))
    size = x.shape[axis]
    if size < 3:
        return x
    cut = author.random.randrange(1, size)
    if size % 3 == 0 and author.chance(50):
        parts = ops.split(x, 3, axis=axis)
    elif author.chance(30):
        parts = [ops.expand_dims(part, axis) for part in ops.unstack(x, axis=axis)]
    else:
        parts = ops.split(x, [cut], axis=axis)
    parts = [gate()(p) if author.chance(30) else p for p in parts[::-1]]
    parts = [author.one_of(UNARY)(p) if author.chance(30) else p for p in parts]
    return ops.concatenate(parts[: -1 if author.chance(30) else None], axis=axis - len(x.shape))


@step(2, 3, 4)
def select(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    axis = author.random.randrange(1, len(x.shape))
    size = x.shape[axis]
    key: list[Any] = [slice(None)] * axis
    start = author.random.randrange(0, max(1, size // 2))
    slices = [slice(start, None), slice(None, -1), slice(None, None, 2), slice(None, None, -1)]
    if size > 1 and author.chance(60):
        return x[(*key, author.one_of(slices))]
    if author.chance(30) and len(x.shape) > 2:
        return x[(*key, author.random.randrange(-size, size), None)]
    positions = [author.random.randrange(-size, size) for _ in range(author.count())]
    return ops.take(x, positions, axis=axis)


@step(2, 3, 4)
def rearrange(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    rank = len(x.shape)
    axis = author.random.randrange(1, rank)
    flipped = ops.flip(x, axis=axis)
    if rank == 2:
        return flipped
    others = list(range(1, rank))
    author.random.shuffle(others)
    pads = [[0, 0], *([author.random.randrange(2), author.random.randrange(2)] for _ in others)]
    tiles = [1] * rank
    tiles[axis] = 2
    return author.one_of(
        [
            lambda: flipped,
            lambda: ops.transpose(x, (0, *others)),
            lambda: ops.moveaxis(x, 1, -1),
            lambda: ops.swapaxes(x, 1, -1),
            lambda: ops.roll(x, 1, axis=axis),
            lambda: ops.pad(x, pads),
            lambda: ops.pad(x, pads, constant_values=author.one_of([0.5, 0.0])),
            lambda: ops.pad(x, pads, mode="symmetric"),
            lambda: ops.tile(x, tiles),
            lambda: ops.softmax(x, axis=axis),
            lambda: ops.squeeze(ops.expand_dims(x, axis), axis),
        ]
    )()


@step(3, 4)
def reduce(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    kind = author.one_of([ops.mean, ops.sum, ops.max, ops.min, ops.var, ops.std, ops.prod])
    axes = list(range(1, len(x.shape)))
    author.random.shuffle(axes)
    left = 1 if author.chance(70) else 2
    return kind(x, axis=tuple(axes[:-left]), keepdims=author.chance(40) or left == 2)


@step(2, 3, 4)
def reshape(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    sizes = x.shape[1:]
    last = sizes[-1]
    if len(sizes) == 3 and author.chance(50):
        return ops.reshape(x, (-1, sizes[0] * sizes[1], last))
    factors = [n for n in (2, 3, 5) if last % n == 0]
    if not factors:
        return ops.reshape(x, (-1, int(np.prod(sizes))))
    n = factors[0]
    if author.chance(40):  # a channel shuffle
        grid = ops.reshape(x, (-1, *sizes[:-1], n, last // n))
        return ops.reshape(ops.swapaxes(grid, -1, -2), (-1, *sizes))
    if len(sizes) == 1:
        return ops.reshape(x, (-1, last // n, n))
    return ops.reshape(x, (-1, *sizes[:-2], sizes[-2] * n, last // n))


@step(2, 3)
def stack(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    pieces = [x, author.like(x), author.one_of(UNARY)(x)]
    return ops.stack(pieces, axis=author.random.randrange(1, len(x.shape) + 1))


@step(3)
def squeeze_and_excite(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    weight = layers.Dense(3, activation="relu")(ops.mean(x, axis=1))
    if author.chance(50):
        weight = gate()(weight)
    weight = ops.sigmoid(layers.Dense(x.shape[-1])(weight))
    return x * author.one_of([lambda: weight[:, None], lambda: ops.expand_dims(weight, 1)])()
