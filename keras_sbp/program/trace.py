"""The network as a program: a flat list of calls on tensors, everything nested unfolded."""

from __future__ import annotations

import inspect
from collections import Counter
from typing import Any

import keras

from keras_sbp import _keras
from keras_sbp.program.program import Cast, Op, Program, Tensor, tensors_in
from keras_sbp.program.registry import nearest_handler, stock_class
from keras_sbp.program.shapes import combined, completed
from keras_sbp.program.unfold import (
    CannotUnfoldError,
    Recording,
    input_dtype,
    trains_by_default,
    unfold,
)


def trace(model: keras.Model, inputs: Any = None) -> Program:
    """Reads a built model as a program.

    Nested Sequential and Functional models are unfolded, to any depth, and so are models and
    layers that define their own `call` from layers and `keras.ops`. What is called twice keeps
    one set of weights.

    Args:
        model: a `keras.Model`. It is not changed.
        inputs: for models that define their own `call`, what to call it with: a structure of
            `keras.Input`s or arrays. `None` takes the shapes that the model was built with.

    Raises:
        TypeError: `model` is not a Keras model, or its own `call` cannot be read.
        ValueError: `model` is not built, or `inputs` do not suit it.
    """
    functional = _keras.functional_view(model)
    if functional is not None:
        _refuse_other_inputs(model, inputs)
        return _of_functional(model, functional, _Reader(unfold_layers=True))
    _refuse(model)
    reader = _Reader(unfold_layers=True)
    input_structure = symbolic_inputs(model, inputs)
    structure = keras.tree.map_structure(_tensor, input_structure)
    tensors = keras.tree.flatten(structure)
    try:
        recording = unfold(model, (structure,), {})
    except CannotUnfoldError as error:
        raise TypeError(
            f"Model '{model.name}' (of type {type(model).__name__}) defines its own call(), "
            f"and it cannot be read as a graph: {error}. Expected a call() made of Keras "
            "layers and keras.ops that does the same in training and at inference. Change "
            "it, or rebuild the model with keras.Model(inputs, outputs) from its layers."
        ) from error
    outputs = reader.read_recording(recording, model, tensors, path="")
    reader.finish(outputs)
    return Program(model, tensors, outputs, input_structure, recording.outputs, reader.ops)


def read(model: keras.Model) -> Program:
    """Reads a functional model as a program, and looks into none of its layers.

    That is enough to count what a pruned model has: it is flat, and made of stock layers.
    """
    functional = _keras.functional_view(model)
    if functional is None:
        return trace(model)
    return _of_functional(model, functional, _Reader(unfold_layers=False))


def _of_functional(model: keras.Model, functional: Any, reader: _Reader) -> Program:
    inputs = [_tensor(x) for x in functional.inputs]
    outputs = reader.read(functional, inputs)
    reader.finish(outputs)
    return Program(
        model,
        inputs,
        outputs,
        _keras.input_structure(functional),
        _keras.output_structure(functional),
        reader.ops,
    )


def _refuse(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"Expected a keras.Model. Received: {model!r} (of type {type(model).__name__})."
        )
    empty_sequential = isinstance(model, keras.Sequential) and not model.layers
    if empty_sequential or not model.built:
        raise ValueError(
            f"Model '{model.name}' is not built, so its units are unknown. "
            "Expected a model that knows its input shape. Call it once on data, call "
            "model.build(input_shape), or start it with keras.Input(shape)."
        )


def _refuse_other_inputs(model: keras.Model, inputs: Any) -> None:
    if inputs is not None:
        raise ValueError(
            f"Model '{model.name}' has inputs of its own. Expected inputs=None, which is for "
            "models that define call(). Remove the argument."
        )


class _Reader:
    """Collects the calls of a model, and of what is nested in it, in order."""

    def __init__(self, unfold_layers: bool) -> None:
        self.ops: list[Op] = []
        self._unfold_layers = unfold_layers

    def read(self, functional: Any, inputs: list[Tensor], path: str = "") -> list[Tensor]:
        """Appends the calls inside `functional`; returns its output tensors."""
        computed = {id(x): t for x, t in zip(functional.inputs, inputs, strict=True)}
        for operation, fill_in, results in _keras.calls_in_order(functional):
            args, kwargs = fill_in(computed)
            outputs = self._call(operation, args, kwargs, results, path)
            computed.update((id(x), t) for x, t in zip(results, outputs, strict=True))
        return [computed[id(x)] for x in functional.outputs]

    def read_recording(
        self, recording: Recording, layer: Any, arguments: list[Tensor], path: str
    ) -> list[Tensor]:
        """Appends the calls inside an unfolded layer; returns its output tensors."""
        tensors = [
            self._cast(argument, input_dtype(layer, argument.dtype), layer.name, path)
            for argument in arguments
        ]
        return self.read(recording.functional, tensors, path)

    def finish(self, outputs: list[Tensor]) -> None:
        """Marks the calls of layers with weights that are called more than once.

        Forgets the masks that nothing reads.
        """
        calls = Counter(id(op.operation) for op in self.ops)
        for op in self.ops:
            has_weights = bool(getattr(op.operation, "weights", ()))
            op.shared = calls[id(op.operation)] > 1 and has_weights
        forget_unused_masks(self.ops, outputs)

    def _call(
        self, operation: Any, args: tuple, kwargs: dict[str, Any], results: list, path: str
    ) -> list[Tensor]:
        nested = _nested(operation, args, kwargs)
        if nested is not None:
            arguments = tensors_in(args)
            expected = [x.dtype for x in nested.inputs]
            tensors = [
                self._cast(argument, dtype, nested.name, path)
                for argument, dtype in zip(arguments, expected, strict=True)
            ]
            return self.read(nested, tensors, path)
        reason = ""
        if self._unfold_layers and _is_unknown_layer(operation):
            try:
                outputs = self._unfolded(operation, args, kwargs, path)
                shapes = combined([t.shape for t in outputs], [tuple(x.shape) for x in results])
                _give_shapes(outputs, shapes)
                return outputs
            except CannotUnfoldError as error:
                reason = str(error)
        outputs = [_tensor(x) for x in results]
        op = Op(operation, args, kwargs, outputs, path, reason)
        handler = nearest_handler(operation)
        _give_shapes(outputs, handler.output_shapes(op) if handler else completed(op))
        self.ops.append(op)
        return outputs

    def _unfolded(self, layer: Any, args: tuple, kwargs: dict[str, Any], path: str) -> list[Tensor]:
        arguments = tensors_in((args, kwargs))
        if any(tensor.masked for tensor in arguments):
            raise CannotUnfoldError("its input carries a Keras mask")
        if kwargs.get("training"):
            if trains_by_default(layer):
                raise CannotUnfoldError("its call() has training=True by default")
            raise CannotUnfoldError("it is called with training=True")
        recording = unfold(layer, args, kwargs)
        return self.read_recording(recording, layer, arguments, f"{path}{layer.name}/")

    def _cast(self, tensor: Tensor, dtype: str, name: str, path: str) -> Tensor:
        """Keras casts the inputs of nested models and layers; so does the program."""
        if tensor.dtype == dtype:
            return tensor
        output = Tensor(tensor.shape, dtype, tensor.masked)
        self.ops.append(Op(Cast(dtype, f"{name}_cast"), (tensor,), {}, [output], path))
        return output


def _is_unknown_layer(operation: Any) -> bool:
    return isinstance(operation, keras.layers.Layer) and stock_class(operation) is None


def _give_shapes(tensors: list[Tensor], shapes: list[tuple[int | None, ...]]) -> None:
    for tensor, shape in zip(tensors, shapes, strict=True):
        tensor.shape = shape


def _tensor(x: keras.KerasTensor) -> Tensor:
    return Tensor(tuple(x.shape), x.dtype, _keras.carries_mask(x))


def _nested(operation: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Returns the nested model's graph where unfolding it is certain to be the same function."""
    if not isinstance(operation, keras.Model) or any(v is not None for v in kwargs.values()):
        return None
    functional = _keras.functional_view(operation)
    arguments = keras.tree.flatten(args)
    if functional is None or len(arguments) != len(functional.inputs):
        return None
    for argument, expected in zip(arguments, functional.inputs, strict=True):
        if not isinstance(argument, Tensor) or argument.rank != len(expected.shape):
            return None
    return functional


def forget_unused_masks(ops: list[Op], outputs: list[Tensor]) -> None:
    """Unmarks tensors whose mask reaches neither an output nor a layer whose `call` takes masks.

    A loss reads the masks of outputs. `keras.ops` neither read masks nor hand them on.
    """
    used = set(outputs)
    for op in reversed(ops):
        if isinstance(op.operation, keras.layers.Layer):
            hands_on = any(tensor.masked and tensor in used for tensor in op.outputs)
            if hands_on or _reads_masks(op.operation):
                used.update(op.inputs)
    for op in ops:
        for tensor in [*op.inputs, *op.outputs]:
            tensor.masked = tensor.masked and tensor in used


def _reads_masks(layer: keras.layers.Layer) -> bool:
    return any(name.endswith("mask") for name in inspect.signature(layer.call).parameters)


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
        inputs = _keras.declared_inputs(model)
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
