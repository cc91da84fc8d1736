"""Finding the gates of a model."""

from __future__ import annotations

import keras

from keras_sbp.graph import keras_internals
from keras_sbp.layers import SBPLayer
from keras_sbp.layers._kl_weighting import before_refusing

before_refusing.append(keras_internals.undo_running_step)


def find_gates(model: keras.Model) -> list[SBPLayer]:
    """Returns the model's gates, at any depth, each once, in the order of its layers.

    Args:
        model: any Keras model, subclassed ones included.
    """
    layers = keras_internals.sublayers(model)
    return [layer for layer in layers if isinstance(layer, SBPLayer)]
