"""Turns a gated network into a smaller one that computes the same function."""

from keras_sbp.pruning.prune import prune
from keras_sbp.pruning.report import GateReport, LayerReport, PruneReport
from keras_sbp.pruning.sweep import SweepResult, SweepRow, sweep

__all__ = [
    "GateReport",
    "LayerReport",
    "PruneReport",
    "SweepResult",
    "SweepRow",
    "prune",
    "sweep",
]
