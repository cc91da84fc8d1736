"""Latency of two `.tflite` files, measured side by side."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence

import numpy as np

from keras_sbp.deploy.litert import LiteRTModel

_LOADS = 5


@dataclasses.dataclass(frozen=True)
class LatencyComparison:
    """Latency of two models from one interleaved run, in microseconds per call.

    Attributes:
        first_us: Median of the first model.
        first_iqr_us: Its spread, the distance between the quartiles.
        second_us: Median of the second model.
        second_iqr_us: Its spread.
        ratio: `first_us / second_us`: how many times faster the second one is.
        ratio_quartiles: Quartiles of the ratio taken round by round.
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
    warmup: int = 20,
    min_round_s: float = 1e-3,
) -> LatencyComparison:
    """Time two `.tflite` files in turns (A, B, A, B, ...) on the same random input.

    Taking turns gives both models the same share of whatever else the machine is doing, which
    two measurements one after the other do not.

    Args:
        first: The model that is the yardstick.
        second: The model compared with it.
        rounds: Number of turns each model gets, at least.
        num_threads: Threads of the interpreter.
        warmup: Calls of each model before the first timed one, after each loading.
        min_round_s: Shortest time of one turn, in seconds; a fast model is called several times
            in a turn, so that the clock's own cost does not matter.

    Returns:
        A `LatencyComparison`.

    Example:

    ```python
    result = compare_latency("large.tflite", "small.tflite")
    print(f"{result.ratio:.1f} times faster")
    ```
    """
    paths = (first, second)
    # Where an interpreter's weights land in memory is luck, and worth up to a factor of two for
    # large ones. So both are loaded anew several times, and the median is taken over all.
    share = -(-rounds // _LOADS)
    times = np.concatenate(
        [_turns(paths, share, num_threads, warmup, min_round_s) for _ in range(_LOADS)]
    )  # seconds per call, (rounds, 2)
    low, median, high = np.quantile(times, [0.25, 0.5, 0.75], axis=0) * 1e6
    quartiles = np.quantile(times[:, 0] / times[:, 1], [0.25, 0.75])
    return LatencyComparison(
        first_us=float(median[0]),
        first_iqr_us=float(high[0] - low[0]),
        second_us=float(median[1]),
        second_iqr_us=float(high[1] - low[1]),
        ratio=float(median[0] / median[1]),
        ratio_quartiles=(float(quartiles[0]), float(quartiles[1])),
    )


def _turns(
    paths: Sequence[str | os.PathLike[str]],
    rounds: int,
    num_threads: int,
    warmup: int,
    min_round_s: float,
) -> np.ndarray:
    models = [LiteRTModel(path, num_threads) for path in paths]
    calls = []
    for model in models:
        rng = np.random.default_rng(0)
        model.set_inputs({name: _random(rng, *spec) for name, spec in model.inputs.items()})
        _time(model, warmup)
        calls.append(max(1, round(min_round_s / _time(model, warmup))))
    return np.array(
        [[_time(m, n) for m, n in zip(models, calls, strict=True)] for _ in range(rounds)]
    )


def _time(model: LiteRTModel, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        model.invoke()
    return (time.perf_counter() - start) / calls


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    shape = tuple(1 if n < 0 else n for n in shape)
    if dtype.kind == "f":
        return rng.random(shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)
