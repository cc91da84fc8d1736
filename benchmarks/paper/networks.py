"""The networks of the paper's table, plain and with gates."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

import keras_sbp
from keras_sbp import SBPLayer


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


NETWORKS = {"lenet_500_300": lenet_500_300, "lenet5_caffe": lenet5_caffe}


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
    gates = sum(isinstance(layer, SBPLayer) for layer in NETWORKS[name]([1.0] * 9).layers)
    weights = [kl_weight] * gates if isinstance(kl_weight, float) else kl_weight
    if len(weights) != gates:
        raise SystemExit(f"{name} has {gates} gates, received {len(weights)} KL weights.")
    model = NETWORKS[name](weights)
    for layer in dense.layers:
        model.get_layer(layer.name).set_weights(layer.get_weights())
    return model


def _network(kl_weights: Sequence[float] | None, *stack: object) -> keras.Model:
    parts, weights = [], iter(kl_weights or ())
    for part in stack:
        if isinstance(part, SBPLayer):
            if kl_weights is None:
                continue
            part.kl_weight = next(weights)
        parts.append(part)
    return keras.Sequential(parts)
