"""Rows of features times the kernel are what the layer computes."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
from keras import Input, Model, layers

from keras_sbp.program import trace
from keras_sbp.program.facts import linear_map


def convolutions():
    for rank, size in ((1, (11,)), (2, (9, 6)), (3, (7, 6, 8))):
        cls = (layers.Conv1D, layers.Conv2D, layers.Conv3D)[rank - 1]
        paddings = ("valid", "same", "causal") if rank == 1 else ("valid", "same")
        settings = itertools.product(paddings, ((1, 1), (2, 1), (3, 1), (1, 2)), (1, 2, 3))
        for padding, (strides, dilation), kernel in settings:
            name = f"{cls.__name__}_{padding}_{strides}_{dilation}_{kernel}"
            arguments = {"strides": strides, "padding": padding, "dilation_rate": dilation}
            strided = rank == 3 and padding == "same" and strides > kernel
            needed = [pytest.mark.kernel("strided_beyond_the_kernel")] if strided else []
            layer = cls(4, kernel, name=name, **arguments)
            yield pytest.param(layer, (*size, 3), marks=needed)
    yield layers.Conv2D(4, (1, 3), strides=(2, 1), padding="same", name="oblong"), (7, 8, 3)


def channels_first():
    first = {"data_format": "channels_first"}
    yield layers.Conv2D(4, (2, 3), padding="same", name="images", **first), (3, 7, 8)
    yield layers.Conv1D(4, 2, strides=2, name="sequences", **first), (3, 9)


CASES = [
    *convolutions(),
    *(pytest.param(*case, marks=pytest.mark.kernel("channels_first")) for case in channels_first()),
    (layers.Dense(5, name="features"), (7,)),
    (layers.Dense(5, name="positions"), (3, 4, 7)),
]


@pytest.mark.parametrize(("layer", "shape"), CASES, ids=lambda x: str(getattr(x, "name", x)))
def test_rows_times_matrix(layer, shape) -> None:
    x = Input(shape)
    [op] = trace(Model(x, layer(x))).ops
    linear = linear_map(op)
    data = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    expected = keras.ops.convert_to_numpy(layer(data))
    if getattr(layer, "data_format", "") == "channels_first":
        expected = np.moveaxis(expected, 1, -1)
    expected = expected.reshape(-1, expected.shape[-1])
    assert linear.count_rows(data.shape) == len(expected)
    which = np.random.default_rng(1).permutation(len(expected))[:20]
    rows = linear.take_rows(data, which)
    np.testing.assert_allclose(rows @ linear.matrix, expected[which], atol=1e-5)
