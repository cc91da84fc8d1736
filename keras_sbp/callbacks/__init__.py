"""Callbacks for training gated models."""

from keras_sbp.callbacks.gradual_pruning import GradualPruning
from keras_sbp.callbacks.kl_warmup import KLWarmup
from keras_sbp.callbacks.snr_monitor import SNRMonitor

__all__ = ["GradualPruning", "KLWarmup", "SNRMonitor"]
