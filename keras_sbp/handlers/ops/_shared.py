"""Small things that the handlers of `keras.ops` nodes share."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from keras_sbp.program.builder import Builder
from keras_sbp.program.program import Op, Tensor
from keras_sbp.program.registry import stock_class

UNUSUAL_ARGUMENTS = "it is called with unusual arguments"


def anew(op: Op, build: Builder, **changes: Any) -> keras.Operation:
    """Returns a new operation like the op's, with changed constructor arguments.

    They are read from the attributes: a config leaves out what Keras cannot write to a file.
    """
    cls = stock_class(op.operation)
    arguments = [p for p in inspect.signature(cls.__init__).parameters if p not in _NOT_SETTINGS]
    settings = {argument: getattr(op.operation, argument) for argument in arguments}
    return cls(**settings | changes, name=build.name(op.name))


_NOT_SETTINGS = ("self", "name")


def reads_one_tensor(op: Op) -> bool:
    """Tells whether the call has one argument, a tensor."""
    return len(op.args) == 1 and isinstance(op.args[0], Tensor) and not op.kwargs


def axes_of(op: Op, axis: Any) -> tuple[int, ...]:
    """Returns an argument `axis` as numbers from 0; None means all axes."""
    rank = op.inputs[0].rank
    if axis is None:
        return tuple(range(rank))
    axes = axis if isinstance(axis, list | tuple) else [axis]
    return tuple(int(each) % rank for each in axes)
