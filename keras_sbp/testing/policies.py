"""Dtype policies that trials run under."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import keras
import numpy as np

from keras_sbp.comparing.tolerances import ONE_LAYER


@contextlib.contextmanager
def under(policy: str) -> Iterator[None]:
    """Makes layers take this dtype policy inside the block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def is_available(policy: str) -> bool:
    """Tells whether the backend computes in this policy; JAX has float64 behind a switch."""
    dtype = keras.DTypePolicy(policy).compute_dtype
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = keras.ops.convert_to_tensor(np.ones(1), dtype=dtype)
    return keras.backend.standardize_dtype(made.dtype) == dtype


def input_dtype(wanted: str, policy: str) -> str:
    """Returns the dtype of an input; "float" stands for that of the policy's variables."""
    return keras.DTypePolicy(policy).variable_dtype if wanted == "float" else wanted


def close(expected: np.ndarray, received: np.ndarray, dtype: str) -> bool:
    """Tells whether numbers agree up to rounding in a dtype; NaN agrees with NaN."""
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=1.0)
    tolerance = ONE_LAYER.get(dtype, 0.0) * largest
    return np.allclose(expected, received, rtol=0, atol=tolerance, equal_nan=True)
