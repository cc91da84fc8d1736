"""What a model that defines its own `call` is to be called with."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from keras_sbp.graph import keras_internals


def symbolic_inputs(model: keras.Model, inputs: Any = None) -> Any:
    """Returns new symbolic inputs in the structure of the model's first argument.

    Args:
        model: a built model without a graph of its own.
        inputs: a structure of Keras tensors or arrays (batch axis first); `None` takes what the
            model declares, or the shapes that it was built with, in the model's dtype.

    Raises:
        TypeError: the model's `call` needs several arguments.
        ValueError: `inputs` is None and the model does not know its shapes.
    """
    _refuse_several_arguments(model)
    if inputs is None:
        inputs = keras_internals.declared_inputs(model)
    if inputs is None:
        return _from_shapes(_shapes(model), model.input_dtype, name=None)
    return keras.tree.map_structure(_like, inputs)


def _refuse_several_arguments(model: keras.Model) -> None:
    parameters = inspect.signature(model.call).parameters.values()
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in kinds]
    needed = [name for name in needed if name != "training"]  # Keras passes it by itself
    if len(needed) > 1:
        raise TypeError(
            f"Model '{model.name}' (of type {type(model).__name__}) is called with several "
            f"arguments: {', '.join(needed)}. Expected a call() with one, as Functional models "
            "have: a tensor, or a list or dict of tensors. Wrap the model in one that takes a "
            "dict, or give arguments that may be left out a default: mask=None."
        )


def _like(x: Any) -> keras.KerasTensor:
    dtype = keras.backend.standardize_dtype(x.dtype)
    name = getattr(x, "name", None)
    return keras.Input(tuple(x.shape)[1:], dtype=dtype, name=name)


def _shapes(model: keras.Model) -> Any:
    shapes = (model.get_build_config() or {}).get("input_shape")
    if shapes is None:
        raise ValueError(
            f"Model '{model.name}' (of type {type(model).__name__}) defines its own call(), and "
            "it is not known what shapes it is called with. Expected a model that was called on "
            "data, or inputs=... with a keras.Input(shape) for every tensor of its argument."
        )
    return shapes


def _from_shapes(shapes: Any, dtype: str, name: str | None) -> Any:
    if isinstance(shapes, dict):
        return {key: _from_shapes(value, dtype, name=key) for key, value in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return keras.Input(tuple(shapes)[1:], dtype=dtype, name=name)
    return [_from_shapes(value, dtype, name=None) for value in shapes]
