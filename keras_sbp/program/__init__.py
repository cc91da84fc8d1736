"""The network as a program: trace, per-unit knowledge, what a handler is."""

from keras_sbp.program.analysis import Analysis, analyse
from keras_sbp.program.facts import macs
from keras_sbp.program.program import Scale
from keras_sbp.program.trace import Graph, Op, Tensor, read, trace

__all__ = ["Analysis", "Graph", "Op", "Scale", "Tensor", "analyse", "macs", "read", "trace"]
