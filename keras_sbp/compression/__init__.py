"""From a trained network to a small one of a given cost, in one call."""

from keras_sbp.compression.compress import compress
from keras_sbp.compression.report import CompressReport

__all__ = ["CompressReport", "compress"]
