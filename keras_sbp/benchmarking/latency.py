"""How much faster one model runs than another, in LiteRT on this machine."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import tempfile

import keras
import numpy as np

from keras_sbp.benchmarking.timing import take_turns
from keras_sbp.formats.litert_model import LiteRTModel
from keras_sbp.formats.target import target_of
from keras_sbp.formats.write import write

ROUNDS = 50


@dataclasses.dataclass(frozen=True)
class LatencyComparison:
    """Latency of two models from one interleaved run, in microseconds per call.

    Attributes:
        first_us: Median of the first model.
        first_iqr_us: Its spread, the distance between the quartiles.
        second_us: Median of the second model.
        second_iqr_us: Its spread.
        ratio: How many times faster the second one is: the median of what that is round by round.
        ratio_quartiles: The quartiles of the same.
    """

    first_us: float
    first_iqr_us: float
    second_us: float
    second_iqr_us: float
    ratio: float
    ratio_quartiles: tuple[float, float]


def compare_latency(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    rounds: int = 100,
    num_threads: int = 1,
) -> LatencyComparison:
    """Time two `.tflite` files in turns (A, B, A, B, ...) on the same random input.

    Taking turns gives both models the same share of whatever else the machine is doing, which
    two measurements one after the other do not.

    Args:
        first: The model that is the yardstick.
        second: The model compared with it.
        rounds: Number of turns each model gets, at least.
        num_threads: Threads of the interpreter.

    Returns:
        A `LatencyComparison`.

    Example:

    ```python
    result = compare_latency("large.tflite", "small.tflite")
    print(f"{result.ratio:.1f} times faster")
    ```
    """
    loaders = [functools.partial(LiteRTModel, path, num_threads) for path in (first, second)]
    times = take_turns(loaders, rounds=rounds).calls
    low, median, high = np.quantile(times, [0.25, 0.5, 0.75], axis=0) * 1e6
    slower, ratio, faster = np.quantile(times[:, 0] / times[:, 1], [0.25, 0.5, 0.75])
    return LatencyComparison(
        first_us=float(median[0]),
        first_iqr_us=float(high[0] - low[0]),
        second_us=float(median[1]),
        second_iqr_us=float(high[1] - low[1]),
        ratio=float(ratio),
        ratio_quartiles=(float(slower), float(faster)),
    )


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
