"""Layers that are made of other layers are unfolded into the calls inside them.

A layer's `call` on symbolic inputs records its sublayers and `keras.ops` as a graph. That graph
replaces the layer only if it is certain to be the same function, in training too, with all of the
layer's weights in it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_sbp import _keras
from keras_sbp.comparing.drawing import filled
from keras_sbp.comparing.tolerances import SAME_CALLS, distance, largest, tolerance
from keras_sbp.comparing.values import drawn, usual
from keras_sbp.program.program import Tensor, is_tensor

# What unknown sizes are tried with, when a layer is compared with its graph.
TRIAL_SIZES = (16, 64, 4, 1)
BATCH_SIZE = 2


class CannotUnfoldError(Exception):
    """Says in a few words why a layer stays as it is."""


@dataclass(frozen=True)
class Recording:
    """The graph inside a layer.

    Attributes:
        inputs: new symbolic inputs, in the order in which they were asked for.
        functional: a functional model from these inputs to the layer's outputs.
        outputs: the nested structure that the layer returns, of Keras tensors.
    """

    inputs: list[keras.KerasTensor]
    functional: keras.Model
    outputs: Any


def unfold(layer: keras.layers.Layer, args: tuple, kwargs: dict[str, Any]) -> Recording:
    """Records what a layer computes from its arguments.

    Args:
        layer: a built layer. It is called, but keeps nothing of it.
        args, kwargs: of the call; the tensors of the program in them become inputs.

    Raises:
        CannotUnfoldError: the graph would not be, or might not be, the same function.
    """
    _refuse_special(layer)
    takes_training = inspect.signature(layer.call).parameters.get("training")
    if takes_training is not None and takes_training.default is takes_training.empty:
        kwargs = {"training": None} | kwargs
    with _keras.leaving_no_trace(layer):
        recording = _record(layer, args, kwargs, training=None)
        _refuse_lost_weights(layer, _calls(recording))
        if takes_training is not None:
            training = _record(layer, args, kwargs, training=True)
            if _fingerprint(training) != _fingerprint(recording):
                raise CannotUnfoldError("it computes something else in training")
        _compare(layer, args, kwargs, recording.functional)
    return recording


def input_dtype(layer: keras.layers.Layer, dtype: str) -> str:
    """Returns the dtype to which a layer casts an input before it calls itself."""
    is_float = "float" in dtype
    return layer.input_dtype if layer.autocast and is_float else dtype


def trains_by_default(layer: keras.layers.Layer) -> bool:
    """Image preprocessing records training=True at every call, since that is its default."""
    training = inspect.signature(layer.call).parameters.get("training")
    return training is not None and training.default is True


def _refuse_special(layer: keras.layers.Layer) -> None:
    if not layer.built:
        raise CannotUnfoldError("it is not built")
    if _keras.is_adapted_by_lora_or_quantised(layer):
        raise CannotUnfoldError("it is quantised or has LoRA weights")
    if getattr(layer, "activity_regularizer", None) is not None:
        raise CannotUnfoldError("it has an activity regularizer")
    if hasattr(layer.call, "python_function"):
        raise CannotUnfoldError(
            "its call() is decorated with @tf.function: remove the decorator, since Keras compiles "
            "whole models in fit() and predict()"
        )


def _record(
    layer: keras.layers.Layer,
    args: tuple,
    kwargs: dict[str, Any],
    *,
    training: bool | None,
) -> Recording:
    args, kwargs, inputs = _substituted(
        args,
        kwargs,
        lambda leaf: keras.Input(batch_shape=leaf.shape, dtype=input_dtype(layer, leaf.dtype)),
    )
    if training is not None:
        kwargs = kwargs | {"training": training}
    # In a stateless scope, a call that assigns to variables does not change them.
    with keras.StatelessScope() as scope:
        try:
            outputs = layer.call(*args, **kwargs)
        except Exception as error:
            why = _what_it_does(error) or f"{type(error).__name__}: {in_short(error)}"
            raise CannotUnfoldError(f"its call() fails on symbolic inputs ({why})") from error
    if scope.state_mapping:
        raise CannotUnfoldError("its call() changes variables, or draws random numbers")
    leaves = keras.tree.flatten(outputs)
    if not leaves or not all(isinstance(leaf, keras.KerasTensor) for leaf in leaves):
        raise CannotUnfoldError("it returns something else than tensors computed from its inputs")
    try:
        functional = keras.Model(inputs, leaves)
    except Exception as error:
        raise CannotUnfoldError("its outputs are not connected to its inputs") from error
    return Recording(inputs, functional, outputs)


def in_short(error: Exception) -> str:
    """What an error says, in whole sentences, without code and lists of arguments."""
    paragraphs = re.sub(r"\x1b\[\d+m", "", str(error)).strip().split("\n\n")
    # Keras first says where an error happened, and in the next paragraph what.
    told = [paragraphs.pop(0)] if paragraphs[0].startswith("Exception encountered when") else []
    for paragraph in paragraphs:
        if told and paragraph.startswith("```"):
            told[-1] = re.sub(r"(?<=\.) [^.]*:$", "", told[-1])
            break
        told.append(paragraph)
        if not paragraph.endswith(":"):
            break
    return " ".join(" ".join(told).split()).rstrip(".")


# What Keras says at length where a value is asked of a tensor that has none yet.
_ASKS_FOR_A_VALUE = {
    r"cannot be used as input to an? (\w+) function": r"it calls a \1 function on a tensor",
    r"You cannot convert it to an? ([\w ]+)": r"it takes a tensor for a \1",
    r"cannot be used as a (boolean)": r"it takes a tensor for a \1",
}


def _what_it_does(error: Exception) -> str | None:
    """What a call does that keras.ops do not, if the error is one that tells."""
    for said, means in _ASKS_FOR_A_VALUE.items():
        if found := re.search(f"KerasTensor [^\n]*{said}", str(error)):
            return found.expand(means)
    return None


def _refuse_lost_weights(layer: keras.layers.Layer, calls: list[_Call]) -> None:
    """A weight that is used outside of sublayers would be frozen into a constant."""
    owned = {id(w) for call in calls for w in getattr(call.operation, "weights", ())}
    lost = {weight.name for weight in layer.weights if id(weight) not in owned}
    used = {x.name for call in calls for x in call.leaves if isinstance(x, keras.Variable)}
    if lost or used:
        names = ", ".join(sorted(lost | used))
        raise CannotUnfoldError(f"it has weights of its own: {names}")


@dataclass(frozen=True)
class _Number:
    """Stands for a tensor of a recording."""

    value: int


@dataclass(frozen=True)
class _Call:
    """A recorded call: the leaves of its arguments, with numbers in place of tensors."""

    operation: keras.Operation | None
    leaves: list

    def fingerprint(self) -> tuple:
        """Returns what makes two calls the same."""
        settings = ""
        what: Any = id(self.operation)
        if self.operation is not None and not isinstance(self.operation, keras.layers.Layer):
            what = type(self.operation)
            settings = repr(self.operation.get_config() | {"name": ""})
        return what, settings, [_comparable(leaf) for leaf in self.leaves]


def _fingerprint(recording: Recording) -> list:
    return [call.fingerprint() for call in _calls(recording)]


def _calls(recording: Recording) -> list[_Call]:
    """The calls in order, without the argument `training`; the last one returns the outputs."""
    numbers = {id(x): _Number(i) for i, x in enumerate(recording.inputs)}
    calls = []
    for operation, fill_in, outputs in _keras.calls_in_order(recording.functional):
        args, kwargs = fill_in(numbers)
        kwargs = {key: value for key, value in kwargs.items() if key != "training"}
        calls.append(_Call(operation, keras.tree.flatten((args, kwargs))))
        numbers |= {id(x): _Number(len(numbers) + i) for i, x in enumerate(outputs)}
    calls.append(_Call(None, [numbers[id(x)] for x in recording.functional.outputs]))
    return calls


def _comparable(leaf: Any) -> Any:
    if isinstance(leaf, _Number | str | int | float | bool | None):
        return leaf
    if keras.ops.is_tensor(leaf) or isinstance(leaf, np.ndarray):
        array = keras.ops.convert_to_numpy(leaf)
        return (array.shape, str(array.dtype), array.tobytes())
    return repr(leaf)


def _compare(
    layer: keras.layers.Layer,
    args: tuple,
    kwargs: dict[str, Any],
    functional: keras.Model,
) -> None:
    """Runs the layer and its graph on the same random inputs."""
    for size in TRIAL_SIZES:
        rng = np.random.default_rng(0)
        make = partial(_trial_input, layer=layer, size=size, rng=rng)
        trial_args, trial_kwargs, arrays = _substituted(args, kwargs, make)
        try:
            with keras.StatelessScope():
                expected = keras.tree.flatten(layer(*trial_args, **trial_kwargs))
                received = keras.tree.flatten(functional(arrays))
        except Exception:
            continue
        if all(map(agree, expected, received)):
            return
        raise CannotUnfoldError("its graph does not reproduce its outputs")
    raise CannotUnfoldError("it does not run on trial inputs")


def _substituted(
    args: tuple,
    kwargs: dict[str, Any],
    make: Callable[[Tensor], Any],
) -> tuple[tuple, dict[str, Any], list]:
    """Returns the arguments with something made in place of each tensor, and a list of these."""
    made: list = []

    def replaced(leaf: Any) -> Any:
        if not is_tensor(leaf):
            return leaf
        made.append(make(leaf))
        return made[-1]

    return *keras.tree.map_structure(replaced, (args, kwargs)), made


def _trial_input(
    tensor: Tensor, *, layer: keras.layers.Layer, size: int, rng: np.random.Generator
) -> np.ndarray:
    return random(tensor.shape, input_dtype(layer, tensor.dtype), size, rng)


def random(
    shape: tuple[int | None, ...], dtype: str, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Returns a trial input: some examples, with a size in place of those that are unknown."""
    return drawn(
        usual(dtype)[-1 if "int" in dtype else 0], filled(shape, BATCH_SIZE, size), dtype, rng
    )


def agree(expected: Any, received: Any) -> bool:
    """Tells whether two results of the same calls agree; NaN agrees with NaN."""
    allowed = tolerance(SAME_CALLS, [keras.backend.standardize_dtype(expected.dtype)])
    x, y = map(keras.ops.convert_to_numpy, (expected, received))
    if x.dtype.kind in "OSU":
        return distance(x, y) == 0
    x, y = x.astype(np.float64), y.astype(np.float64)
    atol = allowed * largest(np.nan_to_num(x))
    return x.shape == y.shape and np.allclose(x, y, rtol=0, atol=atol, equal_nan=True)
