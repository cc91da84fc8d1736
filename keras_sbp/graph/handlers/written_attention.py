"""Dot-product attention in stock operations, for any widths."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def attend(
    query: keras.KerasTensor,
    key: keras.KerasTensor,
    value: keras.KerasTensor,
    *,
    scale: Any,
    bias: Any = None,
    mask: Any = None,
    is_causal: bool = False,
    flash_attention: bool | None = None,
) -> keras.KerasTensor:
    """Calls `keras.ops.dot_product_attention`, or writes it out where the value's width differs.

    Written out, query, key and value must have the same heads.

    Keras takes the output to have the query's shape, so it would pass a wrong width on, also when
    the saved model is read again.
    """
    if is_stock(query, value):
        return keras.ops.dot_product_attention(
            query,
            key,
            value,
            bias=bias,
            mask=mask,
            scale=scale,
            is_causal=is_causal,
            flash_attention=flash_attention,
        )
    scale = default_scale(key.shape[-1]) if scale is None else scale
    dtype = keras.backend.result_type(query.dtype, key.dtype, value.dtype)
    query, key, value = (_cast(x, dtype) for x in (query, key, value))
    scores = keras.ops.einsum("btnh,bsnh->bnts", query, key)
    scores = _cast(scores, keras.backend.result_type(dtype, "float32"))
    scores = keras.ops.multiply(scores, _rounded(scale))
    if bias is not None:
        scores = keras.ops.add(scores, _cast(bias, scores.dtype))
    for condition in (mask, _causal_mask(scores) if is_causal else None):
        if condition is not None:
            low = -0.7 * float(np.finfo(np.float32).max)
            scores = keras.ops.where(_cast(condition, "bool"), scores, low)
    weights = _cast(keras.ops.softmax(scores, axis=-1), dtype)
    return keras.ops.einsum("bnts,bsnh->btnh", weights, value)


def is_stock(query: keras.KerasTensor, value: keras.KerasTensor) -> bool:
    """Tells whether Keras knows the shape of its own operation's output."""
    return query.shape[-1] == value.shape[-1]


def default_scale(width: int) -> float:
    """Returns what Keras scales by where it is not told, rounded as Keras rounds it."""
    return float(np.float32(1) / np.sqrt(np.float32(width)))


def _cast(x: Any, dtype: str) -> Any:
    if isinstance(x, np.ndarray):
        return x.astype(dtype)
    return x if x.dtype == dtype else keras.ops.cast(x, dtype)


def _rounded(scale: Any) -> float:
    """TensorFlow rounds a Python number to float32, also where it computes in float64."""
    scale = float(scale)
    return float(np.float32(scale)) if keras.backend.backend() == "tensorflow" else scale


def _causal_mask(scores: keras.KerasTensor) -> keras.KerasTensor:
    """Lets each row see the columns up to its own; for lengths that may be unknown."""
    ones = keras.ops.ones_like(scores[:1, :1], dtype="int32")
    rows, columns = keras.ops.cumsum(ones, axis=2), keras.ops.cumsum(ones, axis=3)
    return keras.ops.greater_equal(rows, columns)
