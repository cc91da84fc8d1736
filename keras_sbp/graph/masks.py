"""Keras masks travel beside tensors; most are never read."""

from __future__ import annotations

import inspect

import keras

from keras_sbp.graph.program import Op, Tensor


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
