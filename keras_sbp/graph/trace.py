"""The network as a program: a flat list of calls on tensors, nested models unfolded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_sbp.graph import keras_internals


@dataclass(eq=False)
class Tensor:
    """One value of the program. `shape` includes the batch axis; unknown sizes are None."""

    shape: tuple[int | None, ...]
    dtype: str
    masked: bool = False

    @property
    def rank(self) -> int:
        """The number of axes, batch included."""
        return len(self.shape)


@dataclass(eq=False)
class Op:
    """One call of an operation. `args` and `kwargs` hold `Tensor`s where Keras had its own."""

    operation: Any
    args: tuple
    kwargs: dict[str, Any]
    outputs: list[Tensor]
    shared: bool = False  # the operation has weights and is called more than once
    inputs: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        leaves = keras.tree.flatten((self.args, self.kwargs))
        self.inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    @property
    def name(self) -> str:
        """The operation's name."""
        return self.operation.name


@dataclass(frozen=True)
class Cast:
    """The change of dtype that a nested model applies to its inputs."""

    dtype: str
    name: str


@dataclass(eq=False)
class Graph:
    """A traced model.

    Attributes:
        model: the Keras model that was traced.
        inputs, outputs: flat lists, in the order of `model.inputs` and `model.outputs`.
        input_structure, output_structure: the nested structures that the model is called with
            and returns, of Keras tensors.
        ops: the calls, each after those it reads from.
    """

    model: keras.Model
    inputs: list[Tensor]
    outputs: list[Tensor]
    input_structure: Any
    output_structure: Any
    ops: list[Op]


def trace(model: keras.Model) -> Graph:
    """Reads a built Sequential or Functional model as a program.

    Args:
        model: a `keras.Model`. Nested Sequential and Functional models are unfolded, to any
            depth; a nested model that is called twice keeps one set of weights.

    Returns:
        A `Graph`. The model itself is not changed.

    Raises:
        TypeError: `model` is not a Keras model, or defines `call` itself.
        ValueError: `model` is not built.
    """
    functional = keras_internals.functional_view(model)
    if functional is None:
        _refuse(model)
    inputs = [_tensor(x) for x in functional.inputs]
    ops: list[Op] = []
    outputs = _inline(functional, inputs, ops)
    calls = Counter(id(op.operation) for op in ops)
    for op in ops:
        op.shared = calls[id(op.operation)] > 1 and bool(getattr(op.operation, "weights", ()))
    return Graph(
        model,
        inputs,
        outputs,
        keras_internals.input_structure(functional),
        keras_internals.output_structure(functional),
        ops,
    )


def _refuse(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(
            "Expected a Sequential or Functional keras.Model. "
            f"Received: {model!r} (of type {type(model).__name__})."
        )
    if isinstance(model, keras.Sequential):
        raise ValueError(
            f"Model '{model.name}' is not built, so its units are unknown. "
            "Expected a model that knows its input shape. Call it once on data, call "
            "model.build(input_shape), or start it with keras.Input(shape)."
        )
    raise TypeError(
        f"Model '{model.name}' (of type {type(model).__name__}) defines its own call(), so its "
        "graph cannot be read. Expected a Sequential or Functional model. Rebuild it with "
        "keras.Model(inputs, outputs) from its layers."
    )


def _tensor(x: keras.KerasTensor) -> Tensor:
    return Tensor(tuple(x.shape), x.dtype, keras_internals.carries_mask(x))


def _inline(functional: Any, inputs: list[Tensor], ops: list[Op]) -> list[Tensor]:
    """Appends the calls inside `functional` to `ops`; returns its output tensors."""
    computed = {id(x): t for x, t in zip(functional.inputs, inputs, strict=True)}
    for operation, fill_in, results in keras_internals.calls_in_order(functional):
        args, kwargs = fill_in(computed)
        nested = _nested(operation, args, kwargs)
        if nested is not None:
            arguments = keras.tree.flatten(args)
            outputs = _inline(nested, _cast(nested, arguments, ops), ops)
        else:
            outputs = [_tensor(x) for x in results]
            ops.append(Op(operation, args, kwargs, outputs))
        computed.update((id(x), t) for x, t in zip(results, outputs, strict=True))
    return [computed[id(x)] for x in functional.outputs]


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


def _cast(nested: Any, arguments: list[Tensor], ops: list[Op]) -> list[Tensor]:
    """Keras casts a nested model's inputs to their declared dtype; so does the program."""
    tensors = []
    for argument, expected in zip(arguments, nested.inputs, strict=True):
        if argument.dtype != expected.dtype:
            output = Tensor(argument.shape, expected.dtype, argument.masked)
            cast = Cast(expected.dtype, f"{nested.name}_cast")
            ops.append(Op(cast, (argument,), {}, [output]))
            argument = output
        tensors.append(argument)
    return tensors
