"""From a stock Keras layer to the same layer of tf_keras."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_sbp.integrations._parts import UnsupportedLayerError, hard_sigmoid, hard_silu

_DIMENSIONS = ("1D", "2D", "3D")
_SAME = {
    *(f"Conv{d}" for d in _DIMENSIONS),
    *(f"Conv{d}Transpose" for d in _DIMENSIONS),
    *(f"{kind}Conv{d}" for kind in ("Depthwise", "Separable") for d in ("1D", "2D")),
    *(f"{kind}Pooling{d}" for kind in ("Max", "Average") for d in _DIMENSIONS),
    *(f"Global{kind}Pooling{d}" for kind in ("Max", "Average") for d in _DIMENSIONS),
    *(f"{kind}{d}" for kind in ("ZeroPadding", "Cropping", "UpSampling") for d in _DIMENSIONS),
    *(f"SpatialDropout{d}" for d in _DIMENSIONS),
    *("Dense", "EinsumDense", "Embedding", "LSTM", "GRU", "SimpleRNN"),
    *("BatchNormalization", "LayerNormalization", "GroupNormalization", "UnitNormalization"),
    *("ReLU", "ELU", "PReLU", "Softmax"),
    *("Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization"),
    *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot"),
    *("Flatten", "Reshape", "Permute", "RepeatVector", "Masking"),
}
# Entries of a Keras 3 config that say nothing about the function.
_IRRELEVANT = ("seed", "use_cudnn", "lora_rank", "lora_alpha", "quantization_config")
# The names under which both know an activation, and mean the same by it.
_ACTIVATIONS = (
    *("linear", "relu", "relu6", "sigmoid", "tanh", "softmax", "elu", "selu", "softplus"),
    *("softsign", "silu", "gelu", "exponential", "leaky_relu", "mish", "log_softmax"),
)
_RENAMED = {"silu": "swish"}
_OBJECTS = {"_regularizer": "regularizers", "_constraint": "constraints"}


def counterpart(layer: keras.layers.Layer) -> Any:
    """Returns a new tf_keras layer that does the same, without weights.

    Raises:
        UnsupportedLayerError: There is none.
    """
    import tf_keras

    kind = type(layer).__name__
    if kind == "SBPLayer":
        raise UnsupportedLayerError(layer, "it is a gate; prune the model first")
    if type(layer) is not getattr(keras.layers, kind, None):
        raise UnsupportedLayerError(layer, "it is not a stock layer")
    if kind in _SPECIAL:
        return _SPECIAL[kind](tf_keras, layer)
    if kind not in _SAME:
        raise UnsupportedLayerError(layer, "no counterpart is known")
    cls = getattr(tf_keras.layers, kind)
    return cls(**_config(tf_keras, layer, cls))


def copy_weights(layer: keras.layers.Layer, twin: Any) -> None:
    """Gives a tf_keras layer that has been called the weights of its counterpart.

    Raises:
        UnsupportedLayerError: They have other shapes.
    """
    weights = [keras.ops.convert_to_numpy(weight) for weight in layer.weights]
    if not twin.weights:
        return
    shapes = [tuple(weight.shape) for weight in twin.weights]
    if shapes != [weight.shape for weight in weights]:
        raise UnsupportedLayerError(
            layer, f"its weights have other shapes in Keras 2 ({', '.join(map(str, shapes))})"
        )
    twin.set_weights(weights)


def activation_of(owner: Any, function: Callable) -> str:
    """Returns the name of an activation in tf_keras.

    Args:
        owner: What it belongs to, for messages.
        function: A function of `keras.activations`.

    Raises:
        UnsupportedLayerError: It has none, or means something else there.
    """
    name = getattr(function, "__name__", type(function).__name__)
    if name not in _ACTIVATIONS or function is not getattr(keras.activations, name, None):
        raise UnsupportedLayerError(owner, f"the activation '{name}' is another one in Keras 2")
    return _RENAMED.get(name, name)


def _config(tf_keras: Any, layer: keras.layers.Layer, cls: type) -> dict[str, Any]:
    known = _parameters(cls)
    config = {"name": layer.name, "trainable": layer.trainable, "dtype": layer.dtype_policy.name}
    for key, value in layer.get_config().items():
        if key in config or key in _IRRELEVANT or key.endswith("_initializer"):
            continue
        if key.endswith("activation") and value is not None:
            config[key] = activation_of(layer, getattr(layer, key))
        elif key.endswith(tuple(_OBJECTS)):
            config[key] = _object(tf_keras, layer, key, value)
        elif key in known:
            config[key] = value
        elif value not in (None, False, "channels_last"):
            raise UnsupportedLayerError(layer, f"Keras 2 knows no {key}={value!r}")
    return {key: value for key, value in config.items() if value is not None or key in known}


def _object(tf_keras: Any, layer: keras.layers.Layer, key: str, value: Any) -> Any:
    """A regularizer or constraint."""
    if value is None:
        return None
    family = next(name for ending, name in _OBJECTS.items() if key.endswith(ending))
    cls = getattr(getattr(tf_keras, family), value["class_name"], None)
    if cls is None or not str(value.get("module")).startswith("keras."):
        raise UnsupportedLayerError(layer, f"its {key} is not known in Keras 2")
    return cls.from_config(value["config"])


def _parameters(cls: type) -> set[str]:
    """The names of all arguments of a layer's constructor, those of its bases included."""
    found: set[str] = set()
    for base in cls.__mro__:
        if "__init__" in vars(base):
            found |= set(inspect.signature(vars(base)["__init__"]).parameters)
    return found


def _leaky_relu(tf_keras: Any, layer: keras.layers.LeakyReLU) -> Any:
    return tf_keras.layers.LeakyReLU(
        alpha=layer.negative_slope, name=layer.name, dtype=layer.dtype_policy.name
    )


def _identity(tf_keras: Any, layer: keras.layers.Identity) -> Any:
    return tf_keras.layers.Activation("linear", name=layer.name, dtype=layer.dtype_policy.name)


def _activation(tf_keras: Any, layer: keras.layers.Activation) -> Any:
    """Two activations are made of other layers, since Keras 2 means something else by them."""
    own = {keras.activations.hard_sigmoid: hard_sigmoid, keras.activations.hard_silu: hard_silu}
    if layer.activation in own:
        return _Composite(own[layer.activation], layer.name)
    name = activation_of(layer, layer.activation)
    return tf_keras.layers.Activation(name, name=layer.name, dtype=layer.dtype_policy.name)


def _rescaling(tf_keras: Any, layer: keras.layers.Rescaling) -> Any:
    scale, offset = (np.asarray(value).tolist() for value in (layer.scale, layer.offset))
    dtype = layer.dtype_policy.name
    return tf_keras.layers.Rescaling(scale, offset, name=layer.name, dtype=dtype)


def _normalization(tf_keras: Any, layer: keras.layers.Normalization) -> Any:
    mean, variance = (
        np.squeeze(keras.ops.convert_to_numpy(value)) for value in (layer.mean, layer.variance)
    )
    return tf_keras.layers.Normalization(
        layer.axis, mean, variance, invert=layer.invert, name=layer.name
    )


class _Composite:
    """Several layers in the place of one without weights."""

    weights = ()

    def __init__(self, function: Callable, name: str) -> None:
        self._function, self._name = function, name

    def __call__(self, x: Any) -> Any:
        return self._function(x, self._name)


_SPECIAL = {
    "Activation": _activation,
    "Identity": _identity,
    "LeakyReLU": _leaky_relu,
    "Normalization": _normalization,
    "Rescaling": _rescaling,
}
