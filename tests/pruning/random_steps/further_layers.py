"""Grouped and transposed convolution, further normalisations, and layers that stand alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import layers

from keras_sbp._keras import LayerScale, StochasticDepth
from tests.pruning.oracle import gate
from tests.pruning.random_steps.registry import step

if TYPE_CHECKING:
    from tests.pruning.random_graphs import Author

ACTIVATIONS = [None, "relu", "gelu", "sigmoid", "softplus", "leaky_relu"]


def _paddings(x: keras.KerasTensor) -> list[str]:
    return ["same", "valid"] if min(x.shape[1:-1]) >= 3 else ["same"]


@step(3, 4)
def grouped_convolution(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    if author.chance(30):
        x = _shifted(author, gate()(layers.Dense(author.one_of([4, 6, 8, 9, 12]))(x)))
    channels = x.shape[-1]
    groups = author.one_of([n for n in range(1, channels + 1) if channels % n == 0])
    make = layers.Conv1D if len(x.shape) == 3 else layers.Conv2D
    layer = make(
        groups * author.one_of([1, 2, 3]),
        author.one_of([1, 2, 3]),
        groups=groups,
        strides=author.one_of([1, 1, 2]),
        padding=author.one_of(_paddings(x)),
        use_bias=author.chance(70),
        activation=author.one_of(ACTIVATIONS),
    )
    x = author.remember(layer, x)
    return author.remember(gate(), x) if author.chance(70) else x


@step(3, 4)
def transposed_convolution(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    if author.chance(30):
        x = _shifted(author, gate()(x))
    small = max(x.shape[1:-1]) <= 6
    strides = author.one_of([1, 2]) if small else 1
    padding = author.one_of(["same", "valid"])
    make = layers.Conv1DTranspose if len(x.shape) == 3 else layers.Conv2DTranspose
    layer = make(
        author.count(),
        author.one_of([1, 2, 3]) if small else 1,
        strides=strides,
        padding=padding,
        output_padding=author.one_of([None, strides - 1]) if padding == "valid" else None,
        use_bias=author.chance(70),
        activation=author.one_of(ACTIVATIONS),
    )
    x = author.remember(layer, x)
    return gate()(x) if author.chance(70) else x


@step(3)
def one_dimensional_relatives(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    if author.chance(30):
        x = _shifted(author, gate()(x))
    common = {
        "kernel_size": author.one_of([1, 2, 3]),
        "strides": author.one_of([1, 1, 2]),
        "depth_multiplier": author.one_of([1, 2]),
        "padding": author.one_of(_paddings(x)),
        "use_bias": author.chance(70),
        "activation": author.one_of(ACTIVATIONS),
    }
    depthwise = author.chance(50)
    layer = (
        layers.DepthwiseConv1D(**common)
        if depthwise
        else layers.SeparableConv1D(author.count(), **common)
    )
    x = author.remember(layer, x)
    return gate()(x) if author.chance(70) else x


@step(2, 3, 4)
def normalisation(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    if author.chance(60):
        x = gate(axis=author.one_of([-1, -1, 1]))(x)
    rank, epsilon = len(x.shape), author.one_of([1e-3, 0.1])
    axes = author.one_of([-1, -1, *range(1, rank), list(range(1, rank))])
    last_axes = author.one_of([-1, rank - 1, list(range(1, rank))])
    affine = {"center": author.chance(70), "scale": author.chance(70), "epsilon": epsilon}
    channels = x.shape[-1]
    groups = author.one_of([n for n in range(1, channels + 1) if channels % n == 0])
    layer = author.one_of(
        [
            lambda: layers.LayerNormalization(axes, **affine),
            lambda: layers.GroupNormalization(author.one_of([-1, groups]), **affine),
            lambda: layers.RMSNormalization(last_axes, epsilon=epsilon),
            lambda: layers.UnitNormalization(axes),
        ]
    )()
    x = author.remember(layer, x)
    return author.remember(gate(), x) if author.chance(40) else x


@step(2, 3, 4)
def weighted_units(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    if author.chance(30):
        x = _shifted(author, gate()(x))
    some_axes = [axis for axis in range(1, len(x.shape)) if author.chance(50)]
    layer = author.one_of(
        [
            lambda: layers.PReLU(shared_axes=some_axes),
            layers.PReLU,
            lambda: LayerScale(1.0, x.shape[-1]),
            lambda: StochasticDepth(0.1),
        ]
    )()
    return author.remember(layer, x)


@step(2, 3, 4)
def softmax_layer(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    rank = len(x.shape)
    x = layers.Rescaling(5.0)(gate(axis=author.one_of([-1, 1]))(x))
    axis = author.one_of([-1, *range(1, rank), list(range(1, rank))])
    return layers.Rescaling(5.0)(layers.Softmax(axis)(x))


@step(3, 4)
def permute(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    axes = list(range(1, len(x.shape)))
    author.random.shuffle(axes)
    return layers.Permute(axes)(x)


@step(2)
def repeat_vector(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    x = layers.RepeatVector(author.one_of([2, 4]))(x)
    return gate(axis=author.one_of([-1, 1]))(x)


@step(4)
def resizing(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    if author.chance(50):
        x = _shifted(author, gate()(x))
    return layers.Resizing(
        author.one_of([3, 5, 6]),
        author.one_of([4, 5]),
        interpolation=author.one_of(["nearest", "bilinear", "bicubic"]),
        crop_to_aspect_ratio=author.chance(30),
        antialias=author.chance(30),
    )(x)


@step(2, 3, 4)
def dot_product(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    y = layers.Dense(x.shape[-1], activation=author.one_of(ACTIVATIONS))(x)
    y = gate(axis=author.one_of([-1, -1, 1]))(y)
    if len(x.shape) == 4:
        y = layers.GlobalAveragePooling2D()(y)
        operands, axes = ([x, y], (3, 1)) if author.chance(50) else ([y, x], (1, 3))
    else:
        operands, axes = [x, y], author.one_of([-1, 1])
    return layers.Dot(axes, normalize=author.chance(30))(operands)


def _shifted(author: Author, x: keras.KerasTensor) -> keras.KerasTensor:
    """Turns the zeros of removed units into other constants."""
    shift = author.one_of([layers.BatchNormalization, lambda: layers.Activation("sigmoid")])
    return shift()(x)
