"""Turns a gated network into a smaller one that computes the same function."""

from keras_sbp.pruning.insert import insert_sbp
from keras_sbp.pruning.prune import prune
from keras_sbp.pruning.report import GateReport, LayerReport, PruneReport
from keras_sbp.pruning.sweep import sweep
from keras_sbp.pruning.sweep_result import SweepResult, SweepRow

__all__ = [
    "GateReport",
    "LayerReport",
    "PruneReport",
    "SweepResult",
    "SweepRow",
    "insert_sbp",
    "prune",
    "sweep",
]
