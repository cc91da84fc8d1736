"""From a Keras model to a file that runs without it."""

from keras_sbp.formats.litert_model import LiteRTModel
from keras_sbp.formats.write import ExportReport

__all__ = ["ExportReport", "LiteRTModel"]
