"""The public names, each from where it is at home; `keras_sbp/__init__.py` lists them."""

import keras_sbp.distributions as distributions
import keras_sbp.handlers as handlers
import keras_sbp.integrations as integrations
import keras_sbp.rules as rules
import keras_sbp.testing as testing
from keras_sbp.callbacks import GradualPruning, KLWarmup, SNRMonitor
from keras_sbp.compression import compress, shrink
from keras_sbp.exporting import benchmark, export
from keras_sbp.handlers import LayerHandler, register_handler
from keras_sbp.insertion import gates_report, insert_sbp
from keras_sbp.layers import SBPLayer
from keras_sbp.pruning import prune, sweep
from keras_sbp.rules import (
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

# Without this, a strict type checker takes nothing of it for public.
__all__ = [
    "BMRSNormal",
    "BMRSUniform",
    "BatchNormScale",
    "Budget",
    "GradualPruning",
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
    "benchmark",
    "compress",
    "distributions",
    "export",
    "gates_report",
    "handlers",
    "insert_sbp",
    "integrations",
    "prune",
    "register_handler",
    "rules",
    "shrink",
    "sweep",
    "testing",
]
