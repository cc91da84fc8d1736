"""Structured Bayesian pruning for Keras 3."""

from keras_sbp import distributions, handlers, testing
from keras_sbp.callbacks import KLWarmup, SNRMonitor
from keras_sbp.exporting import benchmark, export
from keras_sbp.handlers import LayerHandler, register_handler
from keras_sbp.layers import SBPLayer
from keras_sbp.pruning import insert_sbp, prune, sweep
from keras_sbp.selection import (
    BatchNormScale,
    BMRSNormal,
    BMRSUniform,
    Budget,
    L1Norm,
    L2Norm,
    LayerInputChange,
    Random,
    SNRThreshold,
    Taylor,
)
from keras_sbp.version import __version__

__all__ = [
    "BMRSNormal",
    "BMRSUniform",
    "BatchNormScale",
    "Budget",
    "KLWarmup",
    "L1Norm",
    "L2Norm",
    "LayerHandler",
    "LayerInputChange",
    "Random",
    "SBPLayer",
    "SNRMonitor",
    "SNRThreshold",
    "Taylor",
    "__version__",
    "benchmark",
    "distributions",
    "export",
    "handlers",
    "insert_sbp",
    "prune",
    "register_handler",
    "sweep",
    "testing",
]
