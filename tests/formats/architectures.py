"""Six small networks of different kinds, with inputs, for every format and quantisation.

Their kernels are large enough that quantising them makes a file smaller.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers


def dense() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((32,), name="features"),
            layers.Dense(64, activation="relu"),
            layers.BatchNormalization(),
            layers.Dense(64, activation="gelu"),
            layers.Dense(5),
        ]
    )


def convolutional() -> keras.Model:
    """With preprocessing inside."""
    return keras.Sequential(
        [
            keras.Input((12, 12, 3), name="image"),
            layers.Rescaling(0.5, offset=0.1),
            layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 0.5]),
            layers.Conv2D(16, 3, activation="relu", padding="same"),
            layers.MaxPooling2D(),
            layers.Conv2D(24, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(4, activation="softmax"),
        ]
    )


def residual() -> keras.Model:
    """Depthwise convolutions and a sum."""
    image = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False)(image)
    x = stem = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.Add()([layers.Conv2D(32, 1)(x), stem])
    return keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def two_to_two() -> keras.Model:
    # Alphabetical order is the reverse of theirs, so a mix-up by position shows.
    a, b = keras.Input((32,), name="zeta"), keras.Input((32,), name="alpha")
    x = layers.Concatenate()([layers.Dense(48, activation="relu")(a), 2.0 * b])
    left, right = layers.Dense(24)(x), layers.Dense(24, activation="sigmoid")(x)
    return keras.Model({"zeta": a, "alpha": b}, {"second": left, "first": right})


def recurrent() -> keras.Model:
    tokens = keras.Input((4,), dtype="int32", name="tokens")
    # Signals must use their range: int8 has steps of 1/128 for what a tanh gives.
    scale = keras.initializers.RandomUniform(-1.0, 1.0)
    x = layers.Embedding(11, 24, embeddings_initializer=scale)(tokens)
    x = layers.GRU(24, unroll=True)(x)
    return keras.Model(tokens, layers.Dense(3)(x))


def attention() -> keras.Model:
    """Without LayerNormalization, for which LiteRT has no integer kernels."""
    sequence = keras.Input((6, 32), name="sequence")
    x = layers.MultiHeadAttention(2, 16)(sequence, sequence)
    x = layers.BatchNormalization()(layers.Add()([sequence, x]))
    x = layers.Add()([x, layers.Dense(32)(layers.Dense(64, activation="gelu")(x))])
    return keras.Model(sequence, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


ARCHITECTURES = [dense, convolutional, residual, two_to_two, recurrent, attention]


def examples(model: keras.Model, count: int, seed: int = 5) -> dict[str, np.ndarray]:
    """Inputs for a model, by name."""
    rng = np.random.default_rng(seed)
    found = {}
    for tensor in model.inputs:
        shape = (count, *tensor.shape[1:])
        whole = "int" in tensor.dtype
        value = rng.integers(0, 11, shape) if whole else rng.standard_normal(shape)
        found[tensor.name] = value.astype(tensor.dtype)
    return found


def answers(model: keras.Model, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of the Keras model, by the names of a signature."""
    if len(inputs) == 1:
        (structure,) = inputs.values()
    else:
        structure = keras.tree.map_structure(lambda tensor: inputs[tensor.name], model.input)
    outputs = model(structure)
    if not isinstance(outputs, dict):
        outputs = {"output_0": outputs}
    return {name: keras.ops.convert_to_numpy(value) for name, value in outputs.items()}
