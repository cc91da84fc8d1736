"""How much faster one model runs than another, in LiteRT on this machine."""

from __future__ import annotations

import pathlib
import tempfile

import keras

from keras_sbp.deploy.benchmark import compare_latency
from keras_sbp.deploy.target import target_of
from keras_sbp.deploy.write import write

ROUNDS = 50


class LatencyYardstick:
    """A model that others are compared with: one example at a time, one thread.

    The files live as long as this object.

    Args:
        model: A model without gates.
    """

    def __init__(self, model: keras.Model) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="keras_sbp_")
        self._yardstick = self._write(model, "whole.tflite")

    def fraction(self, model: keras.Model) -> float:
        """Returns the time that a model takes per call, as a fraction of the yardstick's."""
        path = self._write(model, "other.tflite")
        return 1.0 / compare_latency(self._yardstick, path, rounds=ROUNDS).ratio

    def _write(self, model: keras.Model, name: str) -> pathlib.Path:
        path = pathlib.Path(self._folder.name) / name
        write(model, target_of(path, batch_size=1, verify=False, overwrite=True))
        return path
