"""Turns a gated network into a smaller one that computes the same function."""

from keras_sbp.pruning.gates_report import GatedLayer, GatesReport, gates_report
from keras_sbp.pruning.insert import insert_sbp
from keras_sbp.pruning.prune import prune
from keras_sbp.pruning.report import GateReport, LayerReport, PruneReport
from keras_sbp.pruning.sweep import SweepResult, SweepRow, sweep

__all__ = [
    "GateReport",
    "GatedLayer",
    "GatesReport",
    "LayerReport",
    "PruneReport",
    "SweepResult",
    "SweepRow",
    "gates_report",
    "insert_sbp",
    "prune",
    "sweep",
]
