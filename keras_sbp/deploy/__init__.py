"""From a Keras model to a file that runs without it, and measuring such files."""

from keras_sbp.deploy.export import ExportReport, export

__all__ = ["ExportReport", "export"]
