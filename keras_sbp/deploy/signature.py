"""What an exported model takes in: one named, shaped and typed spec per input."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np


def input_specs(model: keras.Model, batch_size: int | None) -> Any:
    """Input specs of a model, in the structure in which the model takes its inputs.

    Args:
        model: A built Keras model.
        batch_size: Size of the first axis, `None` to leave it free. An input that was itself
            declared with a fixed batch size keeps that one.

    Returns:
        `keras.InputSpec`s nested like the model's inputs, each with a unique name.

    Raises:
        ValueError: If the model is not built.
    """
    if not model.built:
        raise ValueError(
            f"Model '{model.name}' is not built, so its input shapes are unknown. Call it once on "
            "data, or give it an `Input`, before exporting it."
        )
    structure = _structure(model)
    if structure is None:
        return _from_build_config(model, batch_size)

    def spec(tensor: Any) -> keras.InputSpec:
        first = batch_size if tensor.shape[0] is None else tensor.shape[0]
        name = _argument_name(tensor.name)
        return keras.InputSpec(shape=(first, *tensor.shape[1:]), dtype=tensor.dtype, name=name)

    return keras.tree.map_structure(spec, structure)


def input_names(model: keras.Model) -> list[str]:
    """The names that a model's inputs have in Keras, in the order of the specs."""
    structure = _structure(model)
    return ["inputs"] if structure is None else [x.name for x in keras.tree.flatten(structure)]


def named_outputs(outputs: Any) -> dict[str, Any]:
    """Outputs of a model by the names that TensorFlow gives them in a signature.

    Args:
        outputs: What the model returned.

    Returns:
        A dict in the order in which TensorFlow flattens them.
    """
    if isinstance(outputs, Mapping):
        return {name: outputs[name] for name in sorted(outputs)}
    if isinstance(outputs, list | tuple):
        return {f"output_{i}": value for i, value in enumerate(outputs)}
    return {"output_0": outputs}


def structured(specs: Any, batch: dict[str, np.ndarray]) -> Any:
    """The arrays of a batch, nested as the model takes them."""
    return keras.tree.map_structure(lambda spec: batch[spec.name], specs)


def _structure(model: keras.Model) -> Any:
    """The symbolic inputs, nested as the model takes them; `None` if it has none."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0]
    return model.input if getattr(model, "inputs", None) else None


def _argument_name(name: str) -> str:
    """An input's name; TensorFlow takes only word characters for the arguments of a signature."""
    return re.sub(r"\W", "_", name)


def _from_build_config(model: keras.Model, batch_size: int | None) -> Any:
    config = model.get_build_config() or {}
    shape = config.get("input_shape")
    if not (isinstance(shape, list | tuple) and all(isinstance(n, int | None) for n in shape)):
        raise ValueError(
            f"The inputs of model '{model.name}' ({type(model).__name__}) cannot be read: expected "
            "a Functional or Sequential model, or a subclassed one called on a single tensor, "
            f"received the recorded shapes {config}. Wrap it: "
            "keras.Model(inputs, model(inputs))."
        )
    return keras.InputSpec(shape=(batch_size, *shape[1:]), dtype=model.input_dtype, name="inputs")
