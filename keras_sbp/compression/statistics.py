"""BatchNormalization in a short training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from keras_sbp._keras import sublayers

# Over which part of the training the statistics are averaged: its end.
_PART = 0.1


@contextlib.contextmanager
def keeping_up(network: keras.Model, steps: int | None, epochs: int) -> Iterator[None]:
    """Lets the moving statistics of BatchNormalization keep up with a short training.

    With a momentum of 0.99 they are averages over the last 100 steps or so.
    After a few hundred steps that change a network, they would be those of a
    network that is gone. Within this context, they average over a tenth of the
    steps at most, and afterwards layers have their momentum back.

    Args:
        network: What is trained.
        steps: Of an epoch; None where nobody knows, and nothing is done.
        epochs: How many.
    """
    most = 1.0 - 1.0 / max(2.0, _PART * steps * epochs) if steps else 1.0
    momenta = {
        layer: layer.momentum
        for layer in sublayers(network)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.momentum > most
    }
    try:
        for layer in momenta:
            layer.momentum = most
        yield
    finally:
        for layer, momentum in momenta.items():
            layer.momentum = momentum
