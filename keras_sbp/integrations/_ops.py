"""From operations of `keras.ops` to tf_keras layers and TensorFlow functions on their outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_sbp._keras import core_ops, nn_ops, numpy_ops
from keras_sbp.integrations._parts import (
    UnsupportedLayerError,
    cast,
    hard_sigmoid,
    hard_silu,
    take_layer,
)
from keras_sbp.program.program import Op

_CONSTANTS = (bool, int, float, np.ndarray, np.generic)


def call(op: Op, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Does with tf_keras tensors what an operation does with Keras's.

    Args:
        op: A call of an operation of `keras.ops`.
        args, kwargs: Those of the call, with tf_keras tensors.

    Returns:
        The result.

    Raises:
        UnsupportedLayerError: No counterpart is known.
    """
    operation = op.operation
    found = _OPERATIONS.get(type(operation))
    if found is None:
        raise UnsupportedLayerError(operation, "no counterpart of this operation is known")
    try:
        bound = inspect.signature(operation.call).bind(*args, **kwargs)
    except TypeError as error:
        raise UnsupportedLayerError(operation, str(error)) from error
    bound.apply_defaults()
    return found(op, **bound.arguments)


def _take(op: Op, x: Any, indices: Any) -> Any:
    indices, axis = np.asarray(indices), op.operation.axis
    usual = axis is not None and indices.dtype.kind in "iu" and indices.ndim == 1
    if not usual or (indices < 0).any() or axis % op.inputs[0].rank == 0:
        raise UnsupportedLayerError(op.operation, "it takes by an unusual axis or index")
    return take_layer()(indices.tolist(), axis % op.inputs[0].rank, name=op.operation.name)(x)


def _merge(layer: str, function: Callable) -> Callable:
    """Two tensors of one shape by a layer; anything else by TensorFlow's operator."""

    def convert(op: Op, x1: Any, x2: Any) -> Any:
        import tf_keras

        dtype = op.outputs[0].dtype
        x1, x2 = (x if isinstance(x, _CONSTANTS) else cast(x, dtype) for x in (x1, x2))
        if len(op.inputs) == 2 and op.inputs[0].shape == op.inputs[1].shape:
            return getattr(tf_keras.layers, layer)(name=op.operation.name)([x1, x2])
        return function(x1, x2)

    return convert


def _elementwise(name: str) -> Callable:
    def convert(op: Op, x: Any) -> Any:
        import tensorflow as tf

        return getattr(tf, name)(x)

    return convert


def _activation(name: str) -> Callable:
    def convert(op: Op, x: Any) -> Any:
        import tf_keras

        if getattr(op.operation, "approximate", False):
            raise UnsupportedLayerError(op.operation, "Keras 2 has no approximate GELU layer")
        return tf_keras.layers.Activation(name, name=op.operation.name)(x)

    return convert


def _softmax(op: Op, x: Any) -> Any:
    import tf_keras

    return tf_keras.layers.Softmax(op.operation.axis, name=op.operation.name)(x)


def _reduce(name: str) -> Callable:
    def convert(op: Op, x: Any) -> Any:
        import tensorflow as tf

        return getattr(tf, name)(x, axis=op.operation.axis, keepdims=op.operation.keepdims)

    return convert


def _reshape(op: Op, x: Any) -> Any:
    import tensorflow as tf

    return tf.reshape(x, [-1 if size is None else size for size in op.operation.newshape])


def _concatenate(op: Op, xs: Any) -> Any:
    import tf_keras

    return tf_keras.layers.Concatenate(op.operation.axis, name=op.operation.name)(list(xs))


def _with(name: str, attribute: str) -> Callable:
    """A function of TensorFlow that takes one attribute of the operation."""

    def convert(op: Op, x: Any) -> Any:
        import tensorflow as tf

        return getattr(tf, name)(x, getattr(op.operation, attribute))

    return convert


_ELEMENTWISE = {"Negative": "negative", "Square": "square", "Sqrt": "sqrt", "Exp": "exp"}
_ELEMENTWISE |= {"Absolute": "abs"}
_ACTIVATIONS = ("Relu", "Relu6", "Sigmoid", "Elu", "Selu", "Softplus", "Softsign", "Gelu")
_REDUCTIONS = {"Mean": "reduce_mean", "Sum": "reduce_sum", "Max": "reduce_max"}
_MERGES = {
    "Add": ("Add", lambda x1, x2: x1 + x2),
    "Subtract": ("Subtract", lambda x1, x2: x1 - x2),
    "Multiply": ("Multiply", lambda x1, x2: x1 * x2),
}

_OPERATIONS: dict[type[keras.Operation], Callable] = {
    core_ops.Cast: lambda op, x: cast(x, op.operation.dtype),
    numpy_ops.Take: _take,
    numpy_ops.Reshape: _reshape,
    numpy_ops.Concatenate: _concatenate,
    numpy_ops.Transpose: _with("transpose", "axes"),
    numpy_ops.ExpandDims: _with("expand_dims", "axis"),
    numpy_ops.Squeeze: _with("squeeze", "axis"),
    numpy_ops.GetItem: lambda op, x, key: x[key],
    numpy_ops.Tanh: _activation("tanh"),
    nn_ops.Silu: _activation("swish"),
    nn_ops.Softmax: _softmax,
    nn_ops.HardSigmoid: lambda op, x: hard_sigmoid(x, op.operation.name),
    nn_ops.HardSilu: lambda op, x: hard_silu(x, op.operation.name),
    **{getattr(numpy_ops, name): _merge(*how) for name, how in _MERGES.items()},
    **{getattr(numpy_ops, name): _elementwise(tf) for name, tf in _ELEMENTWISE.items()},
    **{getattr(numpy_ops, name): _reduce(tf) for name, tf in _REDUCTIONS.items()},
    **{getattr(nn_ops, name): _activation(name.lower()) for name in _ACTIVATIONS},
}
