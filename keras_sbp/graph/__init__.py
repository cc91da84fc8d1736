"""The network as a program: trace, per-unit knowledge, handlers."""

from keras_sbp.graph import handlers
from keras_sbp.graph.analysis import Analysis, analyse
from keras_sbp.graph.facts import macs
from keras_sbp.graph.gates import find_gates
from keras_sbp.graph.program import Scale
from keras_sbp.graph.trace import Graph, Op, Tensor, read, trace

__all__ = [
    "Analysis",
    "Graph",
    "Op",
    "Scale",
    "Tensor",
    "analyse",
    "find_gates",
    "handlers",
    "macs",
    "read",
    "trace",
]
