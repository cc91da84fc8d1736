"""The gate layer."""

from keras_sbp.layers.deciding import deciding
from keras_sbp.layers.find_gates import find_gates
from keras_sbp.layers.sbp import SBPLayer

__all__ = ["SBPLayer", "deciding", "find_gates"]
