"""Puts gates into a network, and says where they are and why not elsewhere."""

from keras_sbp.insertion.gates_report import GatedLayer, GatesReport, gates_report
from keras_sbp.insertion.insert import insert_sbp

__all__ = ["GatedLayer", "GatesReport", "gates_report", "insert_sbp"]
