"""Handlers of operations of `keras.ops`; importing this package registers them."""

from keras_sbp.handlers.ops import (
    arithmetic,
    attention,
    axes,
    contraction,
    join,
    pad,
    rearrange,
    reduce,
    repeat,
    select,
    split,
    unary,
)

__all__ = [
    "arithmetic",
    "attention",
    "axes",
    "contraction",
    "join",
    "pad",
    "rearrange",
    "reduce",
    "repeat",
    "select",
    "split",
    "unary",
]
