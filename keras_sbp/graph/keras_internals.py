"""Everything this package reads from private Keras attributes, in one place.

Keras exposes no public view of the program inside a Functional model. When a new Keras release
moves something, this is the one file to mend.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras.src.activations import activations as activation_ops
from keras.src.applications.convnext import LayerScale, StochasticDepth
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell
from keras.src.models.functional import Functional
from keras.src.models.sequential import Sequential
from keras.src.ops import core as core_ops
from keras.src.ops import math as math_ops
from keras.src.ops import nn as nn_ops
from keras.src.ops import numpy as numpy_ops

__all__ = [
    "activation_ops",
    "ConvLSTMCell",
    "LayerScale",
    "StochasticDepth",
    "calls_in_order",
    "carries_mask",
    "clone_operation",
    "config_of",
    "core_ops",
    "declared_inputs",
    "functional_view",
    "input_layer",
    "input_structure",
    "leaving_no_trace",
    "is_adapted_by_lora_or_quantised",
    "math_ops",
    "nn_ops",
    "numpy_ops",
    "output_structure",
    "rename_clashing_operations",
    "sublayers",
]


def functional_view(model: Any) -> Functional | None:
    """Returns the graph that a model's `call` runs, or None where `call` is not such a graph.

    A subclass of `Functional` or `Sequential` counts only while it inherits `call`: otherwise its
    graph need not be what it computes.
    """
    if isinstance(model, Sequential) and type(model).call is Sequential.call:
        return model._functional
    if isinstance(model, Functional) and type(model).call is Functional.call:
        return model
    return None


def declared_inputs(model: keras.Model) -> Any:
    """Returns the structure of inputs that a model declares beside its own `call`, or None."""
    return model._inputs_struct if isinstance(model, Functional) else None


def calls_in_order(
    functional: Functional,
) -> Iterator[tuple[keras.Operation, Callable[[dict[int, Any]], tuple], list[keras.KerasTensor]]]:
    """Yields (operation, fill_in, outputs) for each call, in the order in which Keras runs them.

    `fill_in({id(keras_tensor): value})` returns the call's `(args, kwargs)` with values in place
    of Keras tensors.
    """
    by_depth = functional._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        for node in by_depth[depth]:
            if not node.is_input:
                yield node.operation, node.arguments.fill_in, node.outputs


def input_structure(functional: Functional) -> Any:
    """Returns the nested structure of the model's inputs, of Keras tensors."""
    return functional._inputs_struct


def output_structure(functional: Functional) -> Any:
    """Returns the nested structure of the model's outputs, of Keras tensors."""
    return functional._outputs_struct


def input_layer(tensor: keras.KerasTensor) -> keras.layers.InputLayer:
    """Returns the `InputLayer` behind one of a model's inputs."""
    return tensor._keras_history.operation


def carries_mask(tensor: keras.KerasTensor) -> bool:
    """Tells whether Keras propagates a (time-step) mask beside this tensor."""
    return getattr(tensor, "_keras_mask", None) is not None


def is_adapted_by_lora_or_quantised(layer: keras.layers.Layer) -> bool:
    """Tells whether the layer's effective weights differ from those it was built with."""
    return bool(getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None))


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns the layers inside a layer, to any depth, without the layer itself."""
    return layer._flatten_layers(include_self=False)


@contextlib.contextmanager
def leaving_no_trace(layer: keras.layers.Layer) -> Iterator[None]:
    """Undoes what symbolic calls of a layer leave behind in it and in its sublayers.

    Without this, `layer.output` and the like would see the calls made here.
    """
    touched = [layer, *sublayers(layer)]
    before = [(list(each._inbound_nodes), list(each._outbound_nodes)) for each in touched]
    try:
        yield
    finally:
        for each, (inbound, outbound) in zip(touched, before, strict=True):
            each._inbound_nodes[:] = inbound
            each._outbound_nodes[:] = outbound


def rename_clashing_operations(outputs: list[keras.KerasTensor]) -> None:
    """Gives operations of `keras.ops` new names where a name is taken; Keras demands it.

    Keras numbers them anew in every process, while those of a loaded model keep their names.
    Layers keep theirs.
    """
    behind = _operations_behind(outputs)
    taken = {each.name for each in behind if isinstance(each, keras.layers.Layer)}
    for operation in behind:
        if not isinstance(operation, keras.layers.Layer):
            name, number = operation.name, 0
            while operation.name in taken:
                number += 1
                operation.name = f"{name}_{number}"
            taken.add(operation.name)


def _operations_behind(outputs: list[keras.KerasTensor]) -> list[keras.Operation]:
    """The operations that tensors are computed by, each once."""
    found: dict[int, keras.Operation] = {}
    waiting, seen = list(outputs), set()
    while waiting:
        tensor = waiting.pop()
        operation, node_index, _ = tensor._keras_history
        if operation is None or (id(operation), node_index) in seen:
            continue
        seen.add((id(operation), node_index))
        found[id(operation)] = operation
        waiting.extend(operation._inbound_nodes[node_index].input_tensors)
    return list(found.values())


def config_of(operation: keras.Operation, cls: type, name: str) -> dict[str, Any]:
    """Returns the config from which `cls` can rebuild the operation under a name.

    A plain function as activation is put in as it is: a user's own need not be registered.
    """
    config = cls.get_config(operation)
    if isinstance(operation, keras.layers.Layer):
        config["name"] = name
    if inspect.isfunction(getattr(operation, "activation", None)):
        config["activation"] = operation.activation
    return config


def clone_operation(operation: keras.Operation, name: str, **changes: Any) -> keras.Operation:
    """Returns a new operation like the old one; weights are not copied.

    Args:
        changes: config entries that differ; of layers only.
    """
    if not isinstance(operation, keras.layers.Layer):
        return _copied(operation, name)
    if isinstance(operation, keras.layers.Lambda):
        # Its config holds byte code, which would come back without the module it was written in.
        return keras.layers.Lambda(
            operation.function,
            output_shape=operation._output_shape,
            mask=operation.mask,
            arguments=operation.arguments,
            name=name,
            dtype=operation.dtype_policy,
        )
    cls = type(operation)
    return cls.from_config(config_of(operation, cls, name) | changes)


def _copied(operation: keras.Operation, name: str) -> keras.Operation:
    """A copy of a `keras.ops` operation, which has no config when its arguments are arrays."""
    cls = type(operation)
    copy = object.__new__(cls)
    copy.__dict__ |= operation.__dict__
    keras.Operation.__init__(copy, name=name)
    return copy
