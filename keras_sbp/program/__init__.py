"""The network as a program: trace, per-unit knowledge, what a handler is."""

from keras_sbp.program.analysis import Analysis, analyse
from keras_sbp.program.facts import macs
from keras_sbp.program.program import Op, Program, Scale, Tensor
from keras_sbp.program.trace import read, trace

__all__ = ["Analysis", "Op", "Program", "Scale", "Tensor", "analyse", "macs", "read", "trace"]
