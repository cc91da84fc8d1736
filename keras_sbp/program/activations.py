"""Which activation functions act on each unit alone, and what they make of a constant."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_sbp.program.program import Op
from keras_sbp.program.registry import handler_of, is_registered
from keras_sbp.program.trace import read
from keras_sbp.program.units import Known

_names = keras.activations

# f(s·x) = s·f(x) for every s ≥ 0.
HOMOGENEOUS = {_names.linear, _names.relu, _names.leaky_relu}

ELEMENTWISE = HOMOGENEOUS | {
    _names.celu,
    _names.elu,
    _names.exponential,
    _names.gelu,
    _names.hard_shrink,
    _names.hard_sigmoid,
    _names.hard_silu,
    _names.hard_tanh,
    _names.log_sigmoid,
    _names.mish,
    _names.relu6,
    _names.selu,
    _names.sigmoid,
    _names.silu,
    _names.soft_shrink,
    _names.softplus,
    _names.softsign,
    _names.sparse_plus,
    _names.sparse_sigmoid,
    _names.squareplus,
    _names.tanh,
    _names.tanh_shrink,
    _names.threshold,
}


def is_elementwise(function: Callable | None) -> bool:
    """Tells whether each unit's output depends on that unit alone.

    A function of the user's own is called on a symbolic tensor, to see what it is made of.
    """
    if function is None:
        return True
    if not inspect.isfunction(function):
        return False
    return function in ELEMENTWISE or _is_made_of_elementwise(function)


def is_homogeneous(function: Callable | None) -> bool:
    """Tells whether scales ≥ 0 pass through the function unchanged."""
    return function is None or (inspect.isfunction(function) and function in HOMOGENEOUS)


@functools.lru_cache(maxsize=256)
def _is_made_of_elementwise(function: Callable) -> bool:
    x = keras.Input((3, 5))
    try:
        program = read(keras.Model(x, function(x)))
    except Exception:  # whatever a user's function does with a symbolic tensor
        return False
    return all(_acts_on_each_number(op) for op in program.ops)


def _acts_on_each_number(op: Op) -> bool:
    cls = type(op.operation)
    if not is_registered(cls) or not handler_of(cls).on_each_number:
        return False
    leaves = keras.tree.flatten((op.args, op.kwargs))
    fixed = [each for each in leaves if not any(each is tensor for tensor in op.inputs)]
    shapes = {tensor.shape for tensor in [*op.inputs, *op.outputs]}
    return (
        len(shapes) == 1
        and all(isinstance(each, bool | int | float) for each in fixed)
        and handler_of(cls).refuses(op) is None
    )


def on_constants(function: Callable[[Any], Any] | None, known: Known, dtype: str) -> Known:
    """Returns the knowledge behind an elementwise function.

    Args:
        dtype: dtype to compute in, that of the layer's variables.
    """
    if function is None:
        return known
    return {axis: _apply(function, constant, dtype) for axis, constant in known.items()}


def _apply(function: Callable[[Any], Any], constant: np.ndarray, dtype: str) -> np.ndarray:
    fixed = ~np.isnan(constant)
    result = np.full_like(constant, np.nan)
    if fixed.any():
        values = function(keras.ops.convert_to_tensor(constant[fixed], dtype))
        result[fixed] = keras.ops.convert_to_numpy(values)
    return result
