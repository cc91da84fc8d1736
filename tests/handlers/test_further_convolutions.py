"""What is physically left of transposed, depthwise and separable convolution; their cost."""

from __future__ import annotations

import pytest
from keras import Input, Model, Sequential, layers

from keras_sbp.program import macs, trace
from tests.handlers.pruned import image_network, kinds, pruned
from tests.pruning.oracle import gate


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_transposed_convolution(rank) -> None:
    convolution = getattr(layers, f"Conv{rank}D")
    transposed = getattr(layers, f"Conv{rank}DTranspose")
    model = Sequential(
        [
            Input((4,) * rank + (3,)),
            convolution(8, 1, activation="relu"),
            gate(),
            transposed(6, 3, strides=2, output_padding=1, use_bias=False, name="transposed"),
            gate(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    small = pruned(model, [0, 1, 5], [2, 3])
    assert small.get_layer("transposed").kernel.shape == (3,) * rank + (4, 5)
    assert kinds(small) == [convolution.__name__, transposed.__name__, "Flatten", "Dense"]


@pytest.mark.parametrize(("kernel", "strides", "inputs"), [(1, 1, 5), (1, 2, 8), (2, 2, 8)])
def test_transposed_convolution_absorbs_constants_only_as_a_matrix(kernel, strides, inputs) -> None:
    transposed = layers.Conv2DTranspose(6, kernel, strides=strides, name="transposed")
    shift = layers.Activation("softplus")
    small = pruned(image_network(layers.Conv2D(8, 3), gate(), shift, transposed), [0, 1, 5])
    assert small.get_layer("transposed").kernel.shape == (kernel, kernel, 6, inputs)


@pytest.mark.kernel("dilated_transposed")
def test_dilated_transposed_convolution() -> None:
    # TensorFlow's CPU kernels know it in float32 at best, so it is not in the zoo.
    transposed = layers.Conv2DTranspose(6, 3, dilation_rate=2, padding="same", name="transposed")
    model = image_network(layers.Conv2D(8, 3, activation="relu"), gate(), transposed, gate())
    small = pruned(model, [0, 1, 5], [2, 3])
    assert small.get_layer("transposed").kernel.shape == (3, 3, 4, 5)


def test_one_dimensional_depthwise_and_separable_convolution() -> None:
    model = Sequential(
        [
            Input((20, 3)),
            layers.Conv1D(8, 3),
            layers.DepthwiseConv1D(3, depth_multiplier=2, activation="relu", name="depthwise"),
            gate(),
            layers.SeparableConv1D(6, 3, depth_multiplier=2, name="separable"),
            gate(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    small = pruned(model, [0, 1, 2, 7], [0, 5])
    assert small.get_layer("depthwise").kernel.shape == (3, 7, 2)
    assert small.get_layer("separable").depthwise_kernel.shape in [(3, 12, 2), (3, 14, 2)]
    assert small.get_layer("separable").pointwise_kernel.shape[-1] == 4


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (layers.Conv2D(12, 3, groups=4), (8, 8, 8), 6 * 6 * 9 * 2 * 12),
        (layers.Conv2D(12, 3, groups=4, data_format="channels_first"), (8, 7, 6), 5 * 4 * 9 * 24),
        (layers.Conv1DTranspose(5, 3, strides=2), (6, 4), 6 * 3 * 4 * 5),
        (layers.Conv2DTranspose(5, 3, strides=2), (6, 7, 4), 6 * 7 * 9 * 4 * 5),
        (
            layers.Conv2DTranspose(5, 3, strides=2, data_format="channels_first"),
            (4, 6, 7),
            6 * 7 * 9 * 4 * 5,
        ),
        (layers.Conv3DTranspose(5, 2), (2, 3, 4, 6), 2 * 3 * 4 * 8 * 6 * 5),
        (layers.DepthwiseConv1D(3, depth_multiplier=2), (8, 4), 6 * 3 * 4 * 2),
        (layers.SeparableConv1D(5, 3, depth_multiplier=2), (8, 4), 6 * (3 * 8 + 8 * 5)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_macs(layer, shape, expected) -> None:
    features = Input(shape)
    assert macs(trace(Model(features, layer(features))).ops[0]) == expected
