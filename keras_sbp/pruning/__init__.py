"""Turns a gated network into a smaller one that computes the same function."""

from keras_sbp.pruning.insert import insert_sbp
from keras_sbp.pruning.prune import prune
from keras_sbp.pruning.report import GateReport, LayerReport, PruneReport

__all__ = ["GateReport", "LayerReport", "PruneReport", "insert_sbp", "prune"]
