"""Exported models measured side by side."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from keras_sbp._arguments import check_count
from keras_sbp.benchmarking.footprint import peak_memory
from keras_sbp.benchmarking.timing import (
    FREE_AXIS,
    Tell,
    check_batch_size,
    has_free_axes,
    take_turns,
)
from keras_sbp.formats.base import format_of_existing
from keras_sbp.formats.chatter import kept_back
from keras_sbp.formats.write import size_of
from keras_sbp.printing import Printable, notes, table, width_of

_MEMORY_SHARE = 0.5  # Of all the time, roughly: new processes, which import the runtimes anew.


@dataclasses.dataclass(frozen=True)
class BenchmarkRow:
    """One model.

    Attributes:
        name: The path, or the name it was given.
        format: Its format.
        speedup: How many times faster than the first model: the median of what that is round by
            round, so that a machine that is slow for a while is slow for both.
        speedup_quartiles: The quartiles of the same.
        size_ratio: How many times smaller than the first model.
        bytes: Size on disk.
        load_ms: Median time to load it, in milliseconds.
        latency_us: Median time of a call, in microseconds.
        latency_iqr_us: Its spread, the distance between the quartiles.
        peak_memory: Bytes of resident memory that loading and running it add at their peak, in
            a new process of its own; `None` if not measured.
        num_threads: Threads it was given; `None` if its runtime uses those of the process.
        free_axes: The size that the free axes of its inputs got, other than the batch; `None` if
            it has none.
    """

    name: str
    format: str
    speedup: float
    speedup_quartiles: tuple[float, float]
    size_ratio: float
    bytes: int
    load_ms: float
    latency_us: float
    latency_iqr_us: float
    peak_memory: int | None
    num_threads: int | None
    free_axes: int | None = None

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name!r}, {self.speedup:.2f}× faster, "
            f"{self.size_ratio:.2f}× smaller, {self.latency_us:,.1f} µs, {self.bytes:,} bytes)"
        )


@dataclasses.dataclass(frozen=True)
class BenchmarkResult(Printable):
    """Models measured in turns; the first is what the others are compared with.

    Attributes:
        rows: One `BenchmarkRow` per model.
        batch_size: Examples per call.
        machine: Where the absolute numbers hold.
    """

    rows: tuple[BenchmarkRow, ...]
    batch_size: int
    machine: str

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, ready for JSON."""
        return {
            "batch_size": self.batch_size,
            "machine": self.machine,
            "rows": [
                dataclasses.asdict(row) | {"speedup_quartiles": list(row.speedup_quartiles)}
                for row in self.rows
            ],
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(
            "In turns; ratios to the first model hold better than times and memory, which are "
            "those of this machine"
        )
        cells = [_cells(row) for row in self.rows]
        parts = [list(range(len(_HEADINGS)))]
        if width_of(_HEADINGS, cells) > options.max_width:
            parts = [list(range(4)), [0, *range(4, len(_HEADINGS))]]
        for columns in parts:
            headings, *lines = [[row[i] for i in columns] for row in (_HEADINGS, *cells)]
            yield table(headings, lines, options.max_width)
        yield notes(
            [
                f"{self.batch_size} example{'' if self.batch_size == 1 else 's'} per call",
                *self._about_free_axes(),
                self.machine,
                "memory: peak above a process with the runtime loaded",
            ]
        )

    def _about_free_axes(self) -> list[str]:
        free = [row for row in self.rows if row.free_axes is not None]
        if not free:
            return []
        names = ", ".join(f"'{row.name}'" for row in free)
        return [f"of size {free[0].free_axes}: axes of inputs that are free in {names}"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.rows))})"


def measure(
    paths: Mapping[str, str | os.PathLike[str]],
    *,
    batch_size: int = 1,
    num_threads: int = 1,
    repeats: int = 100,
    memory: bool = True,
    tell: Tell = lambda share, now: None,
) -> BenchmarkResult:
    """Measure exported models; see `keras_sbp.benchmark`.

    Args:
        paths: Exported models by name.
        batch_size, num_threads, repeats, memory: See `keras_sbp.benchmark`.
        tell: Is told the share that is done, and what is being done now.

    Returns:
        A `BenchmarkResult`.
    """
    batch_size = check_count("benchmark", "batch_size", batch_size)
    num_threads = check_count("benchmark", "num_threads", num_threads)
    repeats = check_count("benchmark", "repeats", repeats, such_as=100)
    if not paths:
        raise ValueError("Expected at least one model to measure, received none.")
    files = [pathlib.Path(path) for path in paths.values()]
    forms = [format_of_existing(path) for path in files]
    loaders = [
        functools.partial(form.load, path, num_threads)
        for path, form in zip(files, forms, strict=True)
    ]
    free_axes = []
    for path, loader in zip(files, loaders, strict=True):
        with kept_back():
            inputs = loader().inputs
        check_batch_size(inputs, batch_size, path)
        free_axes.append(FREE_AXIS if has_free_axes(inputs) else None)
    timings = take_turns(
        loaders,
        rounds=repeats,
        batch_size=batch_size,
        tell=lambda share, now: tell(share * (1 - _MEMORY_SHARE if memory else 1), now),
    )
    peaks: list[int | None] = [None] * len(files)
    if memory:
        for i, name in enumerate(paths):
            tell(1 - _MEMORY_SHARE * (1 - i / len(paths)), f"memory of {name}")
            peaks[i] = peak_memory(
                files[i], forms[i], batch_size=batch_size, num_threads=num_threads
            )
    low, median, high = np.quantile(timings.calls, [0.25, 0.5, 0.75], axis=0)
    slower, speedup, faster = np.quantile(
        timings.calls[:, :1] / timings.calls, [0.25, 0.5, 0.75], axis=0
    )
    sizes = [size_of(path, form) for path, form in zip(files, forms, strict=True)]
    rows = tuple(
        BenchmarkRow(
            name=name,
            format=forms[i].name,
            speedup=float(speedup[i]),
            speedup_quartiles=(float(slower[i]), float(faster[i])),
            size_ratio=sizes[0] / sizes[i],
            bytes=sizes[i],
            load_ms=float(np.median(timings.loads[:, i]) * 1e3),
            latency_us=float(median[i] * 1e6),
            latency_iqr_us=float((high[i] - low[i]) * 1e6),
            peak_memory=peaks[i],
            num_threads=num_threads if forms[i].threads else None,
            free_axes=free_axes[i],
        )
        for i, name in enumerate(paths)
    )
    return BenchmarkResult(rows, batch_size, _machine())


def _machine() -> str:
    system = platform.uname()
    return f"{system.system} {system.machine}, {os.cpu_count()} cores"


_HEADINGS = ("model", "faster", "smaller", "latency", "load", "bytes", "memory", "threads")


def _cells(row: BenchmarkRow) -> tuple[str, ...]:
    low, high = row.speedup_quartiles
    return (
        row.name,
        f"{row.speedup:.2f}× ({low:.2f}–{high:.2f})",
        f"{row.size_ratio:.2f}×",
        f"{row.latency_us:,.1f} ± {row.latency_iqr_us / 2:,.1f} µs",
        f"{row.load_ms:,.1f} ms",
        f"{row.bytes:,}",
        "–" if row.peak_memory is None else f"{row.peak_memory / 1e6:.1f} MB",
        "process" if row.num_threads is None else str(row.num_threads),
    )
