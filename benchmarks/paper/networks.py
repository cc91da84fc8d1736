"""The networks of the paper's table, plain and with gates."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

import keras_sbp
from keras_sbp import SBPLayer

MOST_GATES = 14


def lenet_500_300(kl_weights: Sequence[float] | None = None) -> keras.Model:
    """Two dense layers; gates on the pixels and on both layers."""
    return _network(
        kl_weights,
        keras.Input((28, 28, 1), name="image"),
        layers.Flatten(name="flatten"),
        SBPLayer(name="gate_input"),
        layers.Dense(500, activation="relu", name="dense1"),
        SBPLayer(name="gate_dense1"),
        layers.Dense(300, activation="relu", name="dense2"),
        SBPLayer(name="gate_dense2"),
        layers.Dense(10, name="logits"),
    )


def lenet5_caffe(kl_weights: Sequence[float] | None = None) -> keras.Model:
    """20 and 50 channels, 500 dense units; gates on channels, on features and on dense units."""
    return _network(
        kl_weights,
        keras.Input((28, 28, 1), name="image"),
        layers.Conv2D(20, 5, activation="relu", name="conv1"),
        layers.MaxPooling2D(name="pool1"),
        SBPLayer(name="gate_conv1"),
        layers.Conv2D(50, 5, activation="relu", name="conv2"),
        layers.MaxPooling2D(name="pool2"),
        SBPLayer(name="gate_conv2"),
        layers.Flatten(name="flatten"),
        SBPLayer(name="gate_flat"),
        layers.Dense(500, activation="relu", name="dense"),
        SBPLayer(name="gate_dense"),
        layers.Dense(10, name="logits"),
    )


def cifar_vgg(kl_weights: Sequence[float] | None = None) -> keras.Model:
    """A narrow VGG for CIFAR-10: five convolutions, 7.7 million multiply-accumulates."""
    stack: list = [keras.Input((32, 32, 3), name="image")]
    for block, widths in enumerate([[16], [32, 32], [64, 64]], 1):
        for number, width in enumerate(widths, 1):
            stack += _normalised(f"{block}_{number}", width)
        stack.append(layers.MaxPooling2D(name=f"pool{block}"))
    return _network(
        kl_weights,
        *stack,
        layers.Flatten(name="flatten"),
        layers.Dropout(0.3, name="drop"),
        layers.Dense(128, activation="relu", name="dense"),
        SBPLayer(name="gate_dense"),
        layers.Dense(10, name="logits"),
    )


def vgg_like(kl_weights: Sequence[float] | None = None) -> keras.Model:
    """The paper's network for CIFAR-10: 13 convolutions, 313 million multiply-accumulates.

    Dropout stands only in the network without gates.
    """
    stack: list = [keras.Input((32, 32, 3), name="image")]
    drops = {"1_1": 0.3} | dict.fromkeys(["2_1", "3_1", "3_2", "4_1", "4_2", "5_1", "5_2"], 0.4)
    for block, (width, depth) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], 1):
        for number in range(1, depth + 1):
            name = f"{block}_{number}"
            stack += _normalised(name, width)
            if kl_weights is None and name in drops:
                stack.append(layers.Dropout(drops[name], name=f"drop{name}"))
        stack.append(layers.MaxPooling2D(name=f"pool{block}"))
    stack.append(layers.Flatten(name="flatten"))
    if kl_weights is None:
        stack.append(layers.Dropout(0.5, name="drop_flat"))
    stack += [
        layers.Dense(512, use_bias=False, name="dense"),
        layers.BatchNormalization(name="bn_dense"),
        layers.ReLU(name="relu_dense"),
        SBPLayer(name="gate_dense"),
    ]
    if kl_weights is None:
        stack.append(layers.Dropout(0.5, name="drop_dense"))
    return _network(kl_weights, *stack, layers.Dense(10, name="logits"))


NETWORKS = {
    "lenet_500_300": lenet_500_300,
    "lenet5_caffe": lenet5_caffe,
    "cifar_vgg": cifar_vgg,
    "vgg_like": vgg_like,
}


def gated(name: str, dense: keras.Model, kl_weight: float | str | Sequence[float]) -> keras.Model:
    """Returns a network with gates and the weights of a trained one without.

    Args:
        name: of the network.
        dense: the trained network.
        kl_weight: of each gate in turn, or of all; `"macs"` puts gates where `insert_sbp` does and
            weighs them by what their units cost.
    """
    if isinstance(kl_weight, str):
        return keras_sbp.insert_sbp(dense, kl_weight=kl_weight)
    gates = sum(isinstance(layer, SBPLayer) for layer in NETWORKS[name]([1.0] * MOST_GATES).layers)
    weights = [kl_weight] * gates if isinstance(kl_weight, float) else kl_weight
    if len(weights) != gates:
        raise SystemExit(f"{name} has {gates} gates, received {len(weights)} KL weights.")
    model = NETWORKS[name](weights)
    for layer in dense.layers:
        if layer.weights and not isinstance(layer, layers.Dropout):
            model.get_layer(layer.name).set_weights(layer.get_weights())
    return model


def _normalised(name: str, width: int) -> list:
    """A convolution whose units are exactly 0 behind its gate, whatever pads the next one."""
    return [
        layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"conv{name}"),
        layers.BatchNormalization(name=f"bn{name}"),
        layers.ReLU(name=f"relu{name}"),
        SBPLayer(name=f"gate{name}"),
    ]


def _network(kl_weights: Sequence[float] | None, *stack: object) -> keras.Model:
    parts, weights = [], iter(kl_weights or ())
    for part in stack:
        if isinstance(part, SBPLayer):
            if kl_weights is None:
                continue
            part.kl_weight = next(weights)
        parts.append(part)
    return keras.Sequential(parts)
