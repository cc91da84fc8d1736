"""Float32 that is float32: accelerators round the factors of products unless they are told not to.

On NVIDIA GPUs JAX and TensorFlow round the float32 factors of matrix products and convolutions to
the 10 bits of TF32, PyTorch those of convolutions. Two networks that are the same function then
differ by 1e-3 of their outputs, and a constant that is folded into a bias is off by as much.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Has the backend compute products of float32 numbers in float32, and then as before."""
    with _OF_BACKEND.get(keras.backend.backend(), contextlib.nullcontext)():
        yield


def _jax() -> contextlib.AbstractContextManager[None]:
    import jax

    return jax.default_matmul_precision("highest")


@contextlib.contextmanager
def _tensorflow() -> Iterator[None]:
    from tensorflow.config import experimental

    before = experimental.tensor_float_32_execution_enabled()
    experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        experimental.enable_tensor_float_32_execution(before)


@contextlib.contextmanager
def _torch() -> Iterator[None]:
    from torch import backends

    exact: str | bool
    if hasattr(backends.cuda.matmul, "fp32_precision"):
        name, exact = "fp32_precision", "ieee"
        places: list[Any] = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    else:  # before PyTorch 2.9
        name, exact = "allow_tf32", False
        places = [backends.cuda.matmul, backends.cudnn]
    before = [getattr(place, name) for place in places]
    try:
        for place in places:
            setattr(place, name, exact)
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            setattr(place, name, value)


_OF_BACKEND = {"jax": _jax, "tensorflow": _tensorflow, "torch": _torch}
