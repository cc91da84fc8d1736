"""From a Keras model to a file that runs without it, and measuring such files."""

from keras_sbp.deploy.benchmark import BenchmarkResult
from keras_sbp.deploy.write import ExportReport

__all__ = ["BenchmarkResult", "ExportReport"]
