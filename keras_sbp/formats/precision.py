"""Compute dtypes of a model, and its float32 twin for runtimes that know nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from keras_sbp._keras import config_of


def compute_dtypes(model: keras.Model) -> set[str]:
    """Compute dtypes of all layers of a model."""
    return {layer.compute_dtype for layer in leaves(model)}


def leaves(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """The layers of a model that are not made of others."""
    children = getattr(layer, "layers", None) or ()
    if not children:
        yield layer
    for child in children:
        yield from leaves(child)


def float32_twin(model: keras.Model) -> keras.Model:
    """A model with the same weights that computes in float32.

    LiteRT has no float16, bfloat16 or float64 kernels, so a model trained under such a policy is
    exported through its twin. A model that computes in float32 already is returned as it is.

    Args:
        model: A Functional or Sequential model.

    Returns:
        `model` itself, or a new model of the same structure with copied weights.

    Raises:
        ValueError: If the model must be rebuilt and cannot be.
    """
    others = sorted(compute_dtypes(model) & {"float16", "bfloat16", "float64"})
    if not others:
        return model

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = config_of(layer, type(layer), layer.name)
        return type(layer).from_config(_with_float32(config))

    try:
        twin = keras.models.clone_model(model, clone_function=clone, recursive=True)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ValueError(
            f"Model '{model.name}' computes in {', '.join(others)}, expected float32, the only "
            "floating type LiteRT runs everywhere, and rebuilding it in float32 failed: "
            f"{error} Rebuild it under keras.config.set_dtype_policy('float32') and copy its "
            "weights."
        ) from error
    twin.set_weights(model.get_weights())
    return twin


def _with_float32(config: Any) -> Any:
    """A layer config with every dtype policy in it replaced, those of wrapped layers too."""
    if isinstance(config, dict):
        return {
            key: "float32" if key == "dtype" and _is_float(value) else _with_float32(value)
            for key, value in config.items()
        }
    if isinstance(config, list | tuple):
        return type(config)(_with_float32(item) for item in config)
    return config


def _is_float(dtype: Any) -> bool:
    name = dtype.get("config", {}).get("name") if isinstance(dtype, dict) else dtype
    return isinstance(name, str) and "float" in name
