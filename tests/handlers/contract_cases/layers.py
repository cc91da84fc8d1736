"""A case, or several, for every layer class that has a handler."""

from __future__ import annotations

import numpy as np
from keras import layers

from keras_sbp._keras import LayerScale, StochasticDepth
from tests.handlers.contract_cases.case import Case

SINGLE = ("float32",)  # TensorFlow computes these in single precision only, on a CPU
TWO = ((4, 6), (4, 6))
SPACE = {1: (5, 6), 2: (5, 4, 6), 3: (3, 4, 3, 4)}


def adapted_normalization() -> layers.Normalization:
    return layers.Normalization(mean=np.arange(6.0), variance=np.arange(1.0, 7.0) / 4)


def cases_of_rank(rank: int) -> dict[type, list[Case]]:
    """The layers that end in 1D, 2D or 3D."""

    def of(name: str) -> type:
        return getattr(layers, name.replace("#", f"{rank}D"))

    def case(name: str, *args, **kwargs) -> Case:
        options = {key: kwargs.pop(key) for key in ("outputs", "policies") if key in kwargs}
        return Case(lambda: of(name)(*args, **kwargs), [SPACE[rank]], **options)

    single = SINGLE if rank == 3 else Case.policies
    sizes, pooled = SPACE[rank][:-1], (2,) * rank if rank > 1 else 2
    found = {
        "Conv#": [
            case("Conv#", 4, 2, activation="relu"),
            case("Conv#", 4, 3, padding="same", activation="tanh"),
            case("Conv#", 6, 2, groups=2, use_bias=False),
        ],
        "Conv#Transpose": [
            case("Conv#Transpose", 4, 2, activation="relu"),
            case("Conv#Transpose", 4, 3, strides=2, padding="same"),
        ],
        "MaxPooling#": [case("MaxPooling#", 2, policies=single)],
        "AveragePooling#": [case("AveragePooling#", 2, padding="same", policies=single)],
        "AdaptiveMaxPooling#": [case("AdaptiveMaxPooling#", pooled, policies=single)],
        "AdaptiveAveragePooling#": [case("AdaptiveAveragePooling#", pooled, policies=single)],
        "GlobalMaxPooling#": [case("GlobalMaxPooling#")],
        "GlobalAveragePooling#": [case("GlobalAveragePooling#", keepdims=True)],
        "Cropping#": [case("Cropping#", ((1, 1),) * rank if rank > 1 else 1)],
        "ZeroPadding#": [case("ZeroPadding#", 1)],
        "UpSampling#": [case("UpSampling#", 2)],
        "SpatialDropout#": [case("SpatialDropout#", 0.5)],
    }
    if rank < 3:
        found["DepthwiseConv#"] = [
            case("DepthwiseConv#", 2, depth_multiplier=2, activation="relu"),
            case("DepthwiseConv#", 3, padding="same", activation="sigmoid"),
        ]
        found["SeparableConv#"] = [
            case("SeparableConv#", 4, 2, depth_multiplier=2, activation="relu"),
            case("SeparableConv#", 4, 3, padding="same"),
        ]
    shape = (3, *(min(n, 3) for n in sizes), 4)
    recurrent = of_recurrent(getattr(layers, f"ConvLSTM{rank}D"), shape)
    return {of(name): cases for name, cases in found.items()} | recurrent


def of_recurrent(cls: type, shape: tuple) -> dict[type, list[Case]]:
    return {cls: [Case(lambda: cls(3, 2, return_sequences=True), [shape], outputs=())]}


LAYERS: dict[type, list[Case]] = {
    layers.Activation: [
        Case(lambda: layers.Activation("gelu")),
        Case(lambda: layers.Activation("leaky_relu")),
    ],
    layers.ActivityRegularization: [Case(layers.ActivityRegularization)],
    layers.Add: [
        Case(layers.Add, TWO),
        Case(layers.Add, ((4, 6), (1, 6), (6,))),
    ],
    layers.AlphaDropout: [Case(lambda: layers.AlphaDropout(0.5))],
    layers.Average: [Case(layers.Average, TWO)],
    layers.BatchNormalization: [
        Case(layers.BatchNormalization),
        Case(lambda: layers.BatchNormalization(scale=False, axis=1), inputs=(1,), outputs=(1,)),
    ],
    layers.Bidirectional: [
        Case(lambda: layers.Bidirectional(layers.GRU(3, return_sequences=True)), outputs=()),
    ],
    layers.Concatenate: [
        Case(layers.Concatenate, ((4, 6), (4, 5))),
        Case(lambda: layers.Concatenate(axis=1), ((4, 6), (3, 6)), inputs=(1, 2), outputs=(1, 2)),
    ],
    layers.Dense: [
        Case(lambda: layers.Dense(5, activation="relu")),
        Case(lambda: layers.Dense(5, activation="softmax", use_bias=False), outputs=()),
        Case(lambda: layers.Dense(5, activation="sigmoid"), ((None, 6),)),
    ],
    layers.Dot: [Case(lambda: layers.Dot(axes=(2, 2)), ((4, 6), (3, 6)))],
    layers.Dropout: [Case(lambda: layers.Dropout(0.5))],
    layers.ELU: [Case(layers.ELU)],
    layers.EinsumDense: [
        Case(
            lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"),
            outputs=(-1, -2),
        ),
        Case(
            lambda: layers.EinsumDense("abcd,cde->abe", (None, 5), bias_axes="e"),
            ((4, 2, 6),),
            inputs=(-1, -2),
        ),
    ],
    layers.Embedding: [Case(lambda: layers.Embedding(2, 5), ((4,),), ["int32"], inputs=())],
    layers.Flatten: [Case(layers.Flatten), Case(layers.Flatten, ((2, 3, 6),), inputs=(-1, 1))],
    layers.GRU: [Case(lambda: layers.GRU(3), outputs=())],
    layers.GaussianDropout: [Case(lambda: layers.GaussianDropout(0.5))],
    layers.GaussianNoise: [Case(lambda: layers.GaussianNoise(0.5))],
    layers.GroupNormalization: [Case(lambda: layers.GroupNormalization(3), inputs=(), outputs=())],
    layers.Identity: [Case(layers.Identity)],
    layers.LSTM: [
        Case(lambda: layers.LSTM(3, return_sequences=True, return_state=True), outputs=()),
        Case(lambda: layers.LSTM(3, go_backwards=True), outputs=()),
    ],
    layers.LayerNormalization: [Case(layers.LayerNormalization, inputs=(), outputs=())],
    layers.LeakyReLU: [Case(layers.LeakyReLU)],
    layers.Maximum: [Case(layers.Maximum, TWO)],
    layers.Minimum: [Case(layers.Minimum, TWO)],
    layers.Multiply: [Case(layers.Multiply, TWO), Case(layers.Multiply, ((4, 6), (1, 6)))],
    layers.Normalization: [Case(adapted_normalization)],
    layers.PReLU: [
        Case(layers.PReLU),
        Case(lambda: layers.PReLU(shared_axes=[1]), outputs=(-1,)),
    ],
    layers.Permute: [Case(lambda: layers.Permute((2, 1)), inputs=(1, 2), outputs=(1, 2))],
    layers.RMSNormalization: [Case(layers.RMSNormalization, outputs=())],
    layers.RNN: [Case(lambda: layers.RNN(layers.SimpleRNNCell(3)), outputs=())],
    layers.ReLU: [Case(layers.ReLU), Case(lambda: layers.ReLU(max_value=1.0, threshold=0.2))],
    layers.RepeatVector: [Case(lambda: layers.RepeatVector(3), ((6,),))],
    layers.Rescaling: [
        Case(lambda: layers.Rescaling(0.5, 1.0)),
        Case(lambda: layers.Rescaling(np.arange(1.0, 7.0), np.arange(6.0))),
    ],
    layers.Reshape: [
        Case(lambda: layers.Reshape((6, 4)), inputs=(), outputs=()),
        Case(lambda: layers.Reshape((4, 2, 3)), inputs=(1,), outputs=(1,)),
        Case(lambda: layers.Reshape((-1,))),
    ],
    layers.Resizing: [Case(lambda: layers.Resizing(3, 7), [SPACE[2]], policies=SINGLE)],
    layers.SimpleRNN: [Case(lambda: layers.SimpleRNN(3, return_sequences=True), outputs=())],
    layers.Softmax: [
        Case(lambda: layers.Softmax(axis=1)),
        Case(layers.Softmax, inputs=(), outputs=()),
    ],
    layers.Subtract: [Case(layers.Subtract, TWO)],
    layers.TimeDistributed: [Case(lambda: layers.TimeDistributed(layers.Dense(5, "relu")))],
    # Its epsilon is 0 in half precision, so zeros become NaN there.
    layers.UnitNormalization: [
        Case(layers.UnitNormalization, outputs=(), policies=("float64", "float32"))
    ],
    LayerScale: [Case(lambda: LayerScale(0.5, 6))],
    StochasticDepth: [Case(lambda: StochasticDepth(0.5))],
    **cases_of_rank(1),
    **cases_of_rank(2),
    **cases_of_rank(3),
}
