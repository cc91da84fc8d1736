"""To tf_keras, that is, Keras 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_sbp._keras import input_layer
from keras_sbp.comparing.drawing import Batch, batches, first_that_runs
from keras_sbp.comparing.full_precision import full_precision
from keras_sbp.comparing.tolerances import ROUNDING, tolerance
from keras_sbp.formats.precision import compute_dtypes
from keras_sbp.integrations import _layers, _ops
from keras_sbp.integrations._imports import import_tf_keras
from keras_sbp.integrations._parts import UnsupportedLayerError, cast
from keras_sbp.program import read
from keras_sbp.program.domains import slots_of
from keras_sbp.program.program import Cast, Op, Program, Tensor, is_tensor


@full_precision()
def to_tf_keras(model: keras.Model, *, verify: bool = True) -> Any:
    """Turns a model of stock layers into the same tf_keras (Keras 2) model.

    tensorflow-model-optimization takes tf_keras models only. With this, its quantisation-aware
    training, weight clustering and sparsity follow after pruning.

    The result is functional and flat, and not compiled. Layers keep their names, weights,
    regularizers, constraints and trainable flags; initializers are not needed any more and are
    the default ones. Operations of `keras.ops` become layers where there is one (`Add`,
    `Activation`), and tf_keras's wrappers of TensorFlow's functions elsewhere. The given model
    is not changed.

    Args:
        model: A built model without gates, usually from `keras_sbp.prune`.
        verify: Whether to compare both models on random inputs: the difference may be
            1e-5 of the largest output, or 1e-5 if that is below 1.

    Returns:
        A `tf_keras.Model` with the inputs and outputs of `model`.

    Raises:
        ImportError: tf_keras is not installed.
        TypeError: `model` is not a Keras model.
        UnsupportedLayerError: A layer has no counterpart in tf_keras, or none that is known. It
            is a `ValueError`.
        RuntimeError: The outputs differ.

    Example:

    ```python
    small, report = keras_sbp.prune(model)
    legacy = keras_sbp.integrations.tfmot.to_tf_keras(small)
    ```
    """
    tf_keras = import_tf_keras()
    program = read(model)
    inputs = [_input(tf_keras, x) for x in keras.tree.flatten(program.input_structure)]
    values: dict[Tensor, Any] = dict(zip(program.inputs, inputs, strict=True))
    layers: dict[int, Any] = {}
    for op in program.ops:
        results = keras.tree.flatten(_call(op, values, layers))
        values.update(zip(op.outputs, results, strict=True))
    twin = tf_keras.Model(
        keras.tree.pack_sequence_as(program.input_structure, inputs),
        keras.tree.pack_sequence_as(
            program.output_structure, [values[tensor] for tensor in program.outputs]
        ),
        name=model.name,
    )
    if verify:
        _compare(program, model, twin)
    return twin


def _input(tf_keras: Any, tensor: keras.KerasTensor) -> Any:
    batch_size, *shape = tensor.shape
    name = input_layer(tensor).name
    return tf_keras.Input(tuple(shape), batch_size=batch_size, dtype=tensor.dtype, name=name)


def _call(op: Op, values: Mapping[Tensor, Any], layers: dict[int, Any]) -> Any:
    """Calls the counterpart of an operation; what has weights is made once."""
    args, kwargs = keras.tree.map_structure(
        lambda leaf: values[leaf] if is_tensor(leaf) else _plain(leaf), (op.args, op.kwargs)
    )
    if isinstance(op.operation, Cast):
        return cast(args[0], op.operation.dtype)
    if not isinstance(op.operation, keras.layers.Layer):
        return _ops.call(op, args, kwargs)
    unusual = [f"{k}={v!r}" for k, v in kwargs.items() if v is not None and v is not False]
    if unusual:
        raise UnsupportedLayerError(op.operation, f"it is called with {', '.join(unusual)}")
    first_call = id(op.operation) not in layers
    if first_call:
        layers[id(op.operation)] = _layers.counterpart(op.operation)
    layer = layers[id(op.operation)]
    result = layer(*args)
    if first_call:
        _layers.copy_weights(op.operation, layer)
    return result


def _plain(leaf: Any) -> Any:
    """Arrays of the backend as NumPy's."""
    if keras.ops.is_tensor(leaf) or isinstance(leaf, keras.Variable):
        return keras.ops.convert_to_numpy(leaf)
    return leaf


def _compare(program: Program, model: keras.Model, twin: Any) -> None:
    rounding = tolerance(ROUNDING, compute_dtypes(model) - {"float64"})

    def original(batch: Batch) -> list[Any]:
        return keras.tree.flatten(model(_structured(program, batch), training=False))

    batch, expected = first_that_runs(batches(slots_of(program)), original)
    received = keras.tree.flatten(twin(_structured(program, batch), training=False))
    for tensor, old, new in zip(twin.outputs, expected, received, strict=True):
        old = keras.ops.convert_to_numpy(old).astype(np.float64)
        error = np.max(np.abs(old - np.asarray(new, np.float64)), initial=0.0)
        allowed = rounding * max(1.0, np.max(np.abs(old), initial=0.0))
        if not error <= allowed:
            raise RuntimeError(
                f"Output '{tensor.name}' of the tf_keras model differs from that of '{model.name}' "
                f"by {error:.1e} on random inputs. Expected at most {allowed:.1e}. A layer means "
                "something else in Keras 2: compare them layer by layer."
            )


def _structured(program: Program, batch: Batch) -> Any:
    return keras.tree.pack_sequence_as(program.input_structure, batch.arrays)
