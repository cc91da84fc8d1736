"""Handlers, one file per family; importing this package registers them."""

from keras_sbp.graph.handlers import (
    constant,
    gate,
    layers,
    ops,
)

__all__ = [
    "constant",
    "gate",
    "layers",
    "ops",
]
