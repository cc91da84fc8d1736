"""Timing models in turns, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from keras_sbp.comparing.drawing import filled
from keras_sbp.comparing.values import drawn, integers, uniform, usual
from keras_sbp.formats.base import Inputs, Runtime
from keras_sbp.formats.chatter import kept_back

_LOADS = 5
_WARMUP = 20  # calls of each model before the first timed one, after each loading
# A fast model is called several times in a turn, so that the clock's own cost does not matter.
_SHORTEST_TURN = 1e-3
FREE_AXIS = 32  # what a free axis other than the batch becomes
Tell = Callable[[float, str], None]


@dataclasses.dataclass(frozen=True)
class Timings:
    """Times in seconds, one column per model.

    Attributes:
        calls: Time per call, `(turns, models)`; a row is one round of turns.
        loads: Time to load, `(loads, models)`.
    """

    calls: np.ndarray
    loads: np.ndarray


def take_turns(
    loaders: Sequence[Callable[[], Runtime]],
    *,
    rounds: int,
    batch_size: int = 1,
    tell: Tell = lambda share, now: None,
) -> Timings:
    """Time models in turns: A, B, C, A, B, C, ...

    Args:
        loaders: One function per model that loads it.
        rounds: Number of turns each model gets, at least.
        batch_size: Size of the first axis of inputs that leave it free.
        tell: Is told, between the turns, the share that is done and what is being done now.

    Returns:
        The `Timings`.
    """
    # Where an interpreter's weights land in memory is luck, and worth up to a factor of two for
    # large ones. So all are loaded anew several times, and medians are taken over all.
    share = -(-rounds // _LOADS)
    calls, loads = [], []
    for i in range(_LOADS):
        now = functools.partial(_tell_load, tell, i)
        now(0.0)
        models, seconds = zip(*(_loaded(load) for load in loaders), strict=True)
        loads.append(seconds)
        for model in models:
            model.set_inputs(random_inputs(model.inputs, batch_size))
        calls.append(_turns(models, share, now))
    return Timings(np.concatenate(calls), np.array(loads))


def _tell_load(tell: Callable[[float, str], None], number: int, done: float) -> None:
    tell((number + done) / _LOADS, f"loading and running, {number + 1} of {_LOADS} times")


def random_inputs(inputs: Inputs, batch_size: int) -> dict[str, np.ndarray]:
    """Random values for every input of a model, the same ones for the same shapes.

    Args:
        inputs: Shapes (-1 where free) and dtypes by name.
        batch_size: Size of the first axis where it is free; other free axes get 32.

    Returns:
        A dict from input name to array.
    """
    return {name: _random(shape, dtype, batch_size) for name, (shape, dtype) in inputs.items()}


def has_free_axes(inputs: Inputs) -> bool:
    """Whether an axis other than the batch is free, and gets the size 32."""
    return any(n < 0 for shape, _ in inputs.values() for n in shape[1:])


def check_batch_size(inputs: Mapping[str, tuple], batch_size: int, path: pathlib.Path) -> None:
    """Refuse a file whose batch size is fixed at another value.

    Raises:
        ValueError: If it is.
    """
    for name, (shape, _) in inputs.items():
        if shape and shape[0] not in (-1, batch_size):
            raise ValueError(
                f"Input '{name}' of '{path}' has the fixed batch size {shape[0]}, expected "
                f"{batch_size} or a free one. Measure with batch_size={shape[0]}, or export the "
                f"model with batch_size={batch_size} or None."
            )


def _loaded(load: Callable[[], Runtime]) -> tuple[Runtime, float]:
    with kept_back():
        start = time.perf_counter()
        model = load()
        return model, time.perf_counter() - start


def _turns(models: Sequence[Runtime], rounds: int, tell: Callable[[float], None]) -> np.ndarray:
    counts = []
    for model in models:
        _time(model, _WARMUP)
        counts.append(max(1, round(_SHORTEST_TURN / _time(model, _WARMUP))))
    times = []
    for i in range(rounds):
        times.append([_time(m, n) for m, n in zip(models, counts, strict=True)])
        tell((i + 1) / rounds)
    return np.array(times)


def _time(model: Runtime, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        model.invoke()
    return (time.perf_counter() - start) / calls


def _random(shape: tuple[int, ...], dtype: np.dtype, batch_size: int) -> np.ndarray:
    known = filled(tuple(None if n < 0 else n for n in shape), batch_size, FREE_AXIS)
    # Of a file nobody knows what its inputs mean: 0 and 1 are in every range and vocabulary.
    name = "string" if dtype.kind in "OSU" else dtype.name
    values = {"f": uniform(), "i": integers(0, 1), "u": integers(0, 1)}
    kind = values.get(dtype.kind) or usual(name)[0]
    return drawn(kind, known, name, np.random.default_rng(0))
