"""Gradients of a sum, on whichever backend runs."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np


def gradients(function: Callable, *arrays: np.ndarray) -> list[np.ndarray]:
    """Returns the gradients of `sum(function(*tensors))` with respect to each array, in float32."""
    tensors = [keras.ops.convert_to_tensor(a, "float32") for a in arrays]
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            for tensor in tensors:
                tape.watch(tensor)
            total = keras.ops.sum(function(*tensors))
        found = tape.gradient(total, tensors)
    elif backend == "jax":
        import jax

        numbers = tuple(range(len(tensors)))
        total = jax.grad(lambda *t: keras.ops.sum(function(*t)), argnums=numbers)
        found = jax.jit(total)(*tensors)  # compiled as a whole: faster, and what training runs
    elif backend == "torch":
        for tensor in tensors:
            tensor.requires_grad_()
        keras.ops.sum(function(*tensors)).backward()
        found = [tensor.grad for tensor in tensors]
    else:
        raise NotImplementedError(f"No gradients for the backend {backend}.")
    return [keras.ops.convert_to_numpy(g) for g in found]
