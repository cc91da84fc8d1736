"""BatchNormalization in a short training."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import keras

from keras_sbp._keras import sublayers

# Over which part of the training the statistics are averaged: its end.
_PART = 0.1


class KeepsUp:
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

    def __init__(self, network: keras.Model, steps: int | None, epochs: int) -> None:
        most = 1.0 - 1.0 / max(2.0, _PART * steps * epochs) if steps else 1.0
        layers = sublayers(network)
        self._momenta = {
            layer: layer.momentum
            for layer in layers
            if isinstance(layer, keras.layers.BatchNormalization) and layer.momentum > most
        }
        self._most = most

    def __enter__(self) -> None:
        for layer in self._momenta:
            layer.momentum = self._most

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | Any,
    ) -> None:
        for layer, momentum in self._momenta.items():
            layer.momentum = momentum
