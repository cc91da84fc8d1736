"""The gate layer."""

from keras_sbp.layers.deciding import deciding
from keras_sbp.layers.sbp import SBPLayer

__all__ = ["SBPLayer", "deciding"]
