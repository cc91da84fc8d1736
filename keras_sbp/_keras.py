"""Everything this package reads from private attributes of Keras's models and layers, in one place.

Keras exposes no public view of the program inside a Functional model. When a new Keras release
moves something, this is the file to mend; or `_optimizers.py`, where it is about these.
"""

from __future__ import annotations

import contextlib
import copy
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
from keras.src.utils.tracking import DotNotTrackScope

__all__ = [
    "activation_ops",
    "ConvLSTMCell",
    "LayerScale",
    "StochasticDepth",
    "by_config",
    "calls_in_order",
    "captured_arguments",
    "carries_mask",
    "compile_arguments",
    "compiled_losses",
    "config_of",
    "copied_operation",
    "core_ops",
    "declared_inputs",
    "deep_copy",
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
    "undo_running_step",
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


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """Returns what a model is compiled with, as it was given to `compile()`."""
    return dict(model._compile_config.config)


def compiled_losses(model: keras.Model, outputs: Any) -> list[tuple[keras.losses.Loss, Any, float]]:
    """Returns each loss that a model is compiled with, the output that it is of, and its weight.

    Losses of weight 0 are left out.

    Args:
        model: the model.
        outputs: the structure of its outputs, of Keras tensors.
    """
    compiled = getattr(model, "_compile_loss", None)
    if compiled is None:
        return []
    # Keras looks its losses up in the first step. A copy does it now, and the model's stays.
    names = compiled.output_names
    fresh = type(compiled)(compiled._user_loss, compiled._user_loss_weights, output_names=names)
    fresh.build(outputs, outputs)
    named = dict(zip(names or (), keras.tree.flatten(outputs), strict=False))
    found = []
    for path, loss, weight, _ in fresh._flat_losses:
        output = outputs
        for key in path:
            output = output[key] if isinstance(output, dict) or isinstance(key, int) else named[key]
        if weight is None or weight:
            found.append((loss, output, 1.0 if weight is None else float(weight)))
    return found


def undo_running_step() -> None:
    """Leaves the model fit to train again after the error that is about to end its training step.

    For what the step had begun, Keras itself has no way back. TensorFlow cannot trace a function
    again whose first trace raised. JAX's trainer takes the values out of the model's variables, and
    loses them if the very first step raises.
    """
    fit, train_on_batch = (
        inspect.unwrap(method).__code__ for method in (keras.Model.fit, keras.Model.train_on_batch)
    )
    frame = inspect.currentframe()
    while frame is not None and frame.f_code not in (fit, train_on_batch):
        frame = frame.f_back
    if frame is None:
        return
    model = frame.f_locals["self"]
    model.train_function = None
    if keras.backend.backend() == "jax" and frame.f_code is fit:
        kinds = ("trainable", "non_trainable", "optimizer", "metrics")
        state = frame.f_locals.get("state", ())
        # Before its first step the trainer has taken nothing, and in another release of Keras it
        # may name it otherwise: then the error must come as it is.
        if len(state) == len(kinds):
            # What the trainer finds here when it ends, it writes back.
            model._jax_state = {
                f"{kind}_variables": values for kind, values in zip(kinds, state, strict=True)
            }


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

    Functions, regularizers and the like are put in as they are: a user's own need not be
    registered, nor have a config.
    """
    config = _config(operation, cls)
    for key in config:
        held = getattr(operation, key, None)
        if isinstance(held, _GIVEN) or inspect.isfunction(held):
            config[key] = held
    if isinstance(operation, keras.layers.Layer):
        config["name"] = name
    return config


_GIVEN = (keras.Initializer, keras.constraints.Constraint, keras.Regularizer)


def _config(operation: keras.Operation, cls: Any) -> dict[str, Any]:
    is_default = cls.get_config is keras.layers.Layer.get_config
    if is_default and type(operation) is not cls:
        # It would describe the subclass, or nothing at all where that has a config of its own.
        return _arguments_by_attribute(operation, cls)
    try:
        return dict(cls.get_config(operation))
    except Exception:
        try:
            return _arguments_by_attribute(operation, cls)
        except AttributeError:
            pass
        raise


def _arguments_by_attribute(layer: keras.layers.Layer, cls: Any) -> dict[str, Any]:
    """The constructor's arguments, read from attributes of the same names."""
    named, _ = _parameters(cls)
    settings = _settings_of_any_layer(layer, cls)
    missing = [name for name in named if name not in (*settings, "activity_regularizer")]
    return settings | {name: getattr(layer, name) for name in missing}


def _settings_of_any_layer(layer: keras.layers.Layer, cls: Any) -> dict[str, Any]:
    """What every layer has, as far as the constructor takes it."""
    named, takes_more = _parameters(cls)
    settings = {"name": layer.name, "trainable": layer.trainable, "dtype": layer.dtype_policy.name}
    if layer.activity_regularizer is not None:
        settings["activity_regularizer"] = layer.activity_regularizer
    return {name: value for name, value in settings.items() if takes_more or name in named}


def _parameters(cls: Any) -> tuple[list[str], bool]:
    """The names of a constructor's arguments, and whether it takes others, too."""
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    named = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return named, any(p.kind == p.VAR_KEYWORD for p in parameters)


def by_config(layer: keras.layers.Layer, name: str, **changes: Any) -> keras.layers.Layer:
    """Returns a new layer like the old one, made from its config; weights are not copied.

    Args:
        changes: config entries that differ.
    """
    if isinstance(layer, keras.layers.Lambda):
        # Its config holds byte code, which would come back without the module it was written in.
        return keras.layers.Lambda(
            layer.function,
            output_shape=layer._output_shape,
            mask=layer.mask,
            arguments=layer.arguments,
            name=name,
            dtype=layer.dtype_policy,
        )
    cls = type(layer)
    return cls.from_config(config_of(layer, cls, name) | changes)


def captured_arguments(layer: keras.layers.Layer, name: str) -> dict[str, Any] | None:
    """Returns what a layer was constructed with, under another name.

    Keras remembers only arguments that are numbers, strings, and structures of these; else None.
    """
    captured = getattr(layer, "_auto_config", None)
    if captured is None:
        return None
    settings = _settings_of_any_layer(layer, type(layer)) | captured.config
    return settings | ({"name": name} if "name" in settings else {})


def deep_copy(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Returns a copy of a layer and of all that it holds, made without configs.

    `copy.deepcopy` would write Keras layers to a file and read them, and follow the calls of the
    layer to everything else in its model.
    """
    held = [layer, *sublayers(layer)]
    models = [each for each in held if isinstance(each, Functional)]
    inner_calls = {id(node) for model in models for node in model._nodes}
    parts = {id(part): part for part in held}
    parts |= {id(part): part for model in models for part in model.operations}
    memo = {key: _blank(part) for key, part in parts.items()}
    copies = dict(memo)
    with DotNotTrackScope():  # lists of layers would report what is put into their copies
        for key, part in parts.items():
            # Methods that Keras wraps hold on to the layer; a new one has its own.
            wrapped = [k for k, value in vars(copies[key]).items() if inspect.isfunction(value)]
            state = {k: value for k, value in vars(part).items() if k not in wrapped}
            for calls in ("_inbound_nodes", "_outbound_nodes"):
                state[calls] = [node for node in state[calls] if id(node) in inner_calls]
            vars(copies[key]).update(copy.deepcopy(state, memo))
    for copied in copies.values():
        if isinstance(copied, keras.layers.Layer):
            _track_own(copied)
    return copies[id(layer)]


def _blank(operation: keras.Operation) -> keras.Operation:
    is_layer = isinstance(operation, keras.layers.Layer)
    base = keras.layers.Layer if is_layer else keras.Operation
    return base.__new__(type(operation))


def _track_own(layer: keras.layers.Layer) -> None:
    """A layer knows what it tracks by the ids."""
    tracker = layer._tracker
    for name, (_, tracked) in tracker.config.items():
        tracker.stored_ids[name] = {id(each) for each in tracked}


def copied_operation(operation: keras.Operation, name: str) -> keras.Operation:
    """A copy of a `keras.ops` operation, which has no config when its arguments are arrays."""
    cls = type(operation)
    copied = object.__new__(cls)
    copied.__dict__ |= operation.__dict__
    keras.Operation.__init__(copied, name=name)
    return copied
