"""Handlers, one file per family of layers; importing this package registers them."""

from keras_sbp.graph.handlers import (
    concatenate,
    depthwise,
    gate,
    linear,
    merge,
    normalization,
    preprocessing,
    reshape,
    separable,
    spatial,
    unitwise,
)

__all__ = [
    "concatenate",
    "depthwise",
    "gate",
    "linear",
    "merge",
    "normalization",
    "preprocessing",
    "reshape",
    "separable",
    "spatial",
    "unitwise",
]
