"""Structured Bayesian pruning for Keras 3."""

from keras_sbp import distributions
from keras_sbp.callbacks import KLWarmup, SNRMonitor
from keras_sbp.deploy import export
from keras_sbp.layers import SBPLayer
from keras_sbp.pruning import prune
from keras_sbp.selection import SNRThreshold
from keras_sbp.version import __version__

__all__ = [
    "KLWarmup",
    "SBPLayer",
    "SNRMonitor",
    "SNRThreshold",
    "__version__",
    "distributions",
    "export",
    "prune",
]
