"""Exported models measured: size, time to load, latency and memory."""

from keras_sbp.benchmarking.benchmark import BenchmarkResult, BenchmarkRow

__all__ = ["BenchmarkResult", "BenchmarkRow"]
