"""The network as a program: a flat list of calls on tensors, everything nested unfolded."""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras

from keras_sbp.graph import keras_internals
from keras_sbp.graph.masks import forget_unused_masks
from keras_sbp.graph.program import Cast, Graph, Op, Tensor, tensors_in
from keras_sbp.graph.registry import nearest_handler, stock_class
from keras_sbp.graph.shapes import combined, completed
from keras_sbp.graph.signature import symbolic_inputs
from keras_sbp.graph.unfold import (
    CannotUnfoldError,
    Recording,
    input_dtype,
    trains_by_default,
    unfold,
)


def trace(model: keras.Model, inputs: Any = None) -> Graph:
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
    functional = keras_internals.functional_view(model)
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
    return Graph(model, tensors, outputs, input_structure, recording.outputs, reader.ops)


def read(model: keras.Model) -> Graph:
    """Reads a functional model as a program, and looks into none of its layers.

    That is enough to count what a pruned model has: it is flat, and made of stock layers.
    """
    functional = keras_internals.functional_view(model)
    if functional is None:
        return trace(model)
    return _of_functional(model, functional, _Reader(unfold_layers=False))


def _of_functional(model: keras.Model, functional: Any, reader: _Reader) -> Graph:
    inputs = [_tensor(x) for x in functional.inputs]
    outputs = reader.read(functional, inputs)
    reader.finish(outputs)
    return Graph(
        model,
        inputs,
        outputs,
        keras_internals.input_structure(functional),
        keras_internals.output_structure(functional),
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
        for operation, fill_in, results in keras_internals.calls_in_order(functional):
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
    return Tensor(tuple(x.shape), x.dtype, keras_internals.carries_mask(x))


def _nested(operation: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Returns the nested model's graph where unfolding it is certain to be the same function."""
    if not isinstance(operation, keras.Model) or any(v is not None for v in kwargs.values()):
        return None
    functional = keras_internals.functional_view(operation)
    arguments = keras.tree.flatten(args)
    if functional is None or len(arguments) != len(functional.inputs):
        return None
    for argument, expected in zip(arguments, functional.inputs, strict=True):
        if not isinstance(argument, Tensor) or argument.rank != len(expected.shape):
            return None
    return functional
