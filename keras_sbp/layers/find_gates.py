"""Finding the gates of a model."""

from __future__ import annotations

import keras

from keras_sbp import _keras
from keras_sbp.layers.sbp import SBPLayer


def find_gates(model: keras.Model) -> list[SBPLayer]:
    """Returns the model's gates, at any depth, each once, in the order of its layers.

    Args:
        model: any Keras model, subclassed ones included.
    """
    layers = _keras.sublayers(model)
    return [layer for layer in layers if isinstance(layer, SBPLayer)]
