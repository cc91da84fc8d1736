"""From a trained network to a small one of a given cost, in one call, and the step in between."""

from keras_sbp.compression.compress import compress
from keras_sbp.compression.report import CompressReport
from keras_sbp.compression.shrink import shrink

__all__ = ["CompressReport", "compress", "shrink"]
