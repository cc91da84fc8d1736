"""Counts how far one reads to follow a call: `python -m tools.walks`.

Five walks through the package, each on a small network. For each: the files of the package in which
a function was called, the calls from one file to another, and how often a model was traced and a
program analysed.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import keras
import numpy as np
from keras import layers

import keras_sbp
from benchmarks.markdown import table

PACKAGE = str(Path(keras_sbp.__file__).parent)


@dataclass
class Walk:
    """What one call visits.

    Attributes:
        files: files that were visited.
        functions: (name of the file, function) → number of calls.
        crossings: calls of a function by one in another file of the package.
    """

    files: set[str] = field(default_factory=set)
    functions: Counter[tuple[str, str]] = field(default_factory=Counter)
    crossings: int = 0

    def see(self, frame: FrameType, event: str, argument: Any) -> None:
        """Takes one event of `sys.setprofile`."""
        if event != "call" or not frame.f_code.co_filename.startswith(PACKAGE):
            return
        file = frame.f_code.co_filename
        self.files.add(file)
        self.functions[Path(file).name, frame.f_code.co_name] += 1
        caller = _nearest_in_package(frame.f_back)
        self.crossings += caller is not None and caller != file

    def times(self, file: str, function: str) -> int:
        """Returns how often a function of a file was called."""
        return self.functions[file, function]


def _nearest_in_package(frame: FrameType | None) -> str | None:
    while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return None if frame is None else frame.f_code.co_filename


def walk(call: Callable[[], Any]) -> Walk:
    """Returns what a call visits; it is made once before, so that lazy set-up is not counted."""
    call()
    seen = Walk()
    sys.setprofile(seen.see)
    try:
        call()
    finally:
        sys.setprofile(None)
    return seen


def network(gates: bool) -> keras.Model:
    """Returns a small convolutional network; its gates drop every second unit."""
    found: list[keras_sbp.SBPLayer] = []

    def gate(x: Any) -> Any:
        if not gates:
            return x
        found.append(keras_sbp.SBPLayer(num_samples=100))
        return found[-1](x)

    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(image)
    x = gate(layers.ReLU()(layers.BatchNormalization()(x)))
    x = gate(layers.Conv2D(8, 3, activation="relu")(x))
    x = gate(layers.Dense(16, activation="relu")(layers.Flatten()(x)))
    model = keras.Model(image, layers.Dense(4)(x))
    for each in found:
        each.set_posterior(-0.5, np.where(np.arange(each.units) % 2, 3.0, -3.0))
    return model


def walks() -> dict[str, Callable[[], Any]]:
    """Returns the five walks, by name."""
    keras.utils.set_random_seed(0)
    gated, plain = network(gates=True), network(gates=False)
    gate = next(each for each in gated.layers if isinstance(each, keras_sbp.SBPLayer))
    batch = np.ones((2, *gate.input.shape[1:]), "float32")
    return {
        "`prune(gated)`": lambda: keras_sbp.prune(gated),
        "`prune(plain, L1Norm)`": lambda: keras_sbp.prune(plain, keras_sbp.L1Norm(0.5)),
        "`prune(plain, Budget)`": lambda: keras_sbp.prune(
            plain, keras_sbp.Budget(macs=0.5, base=keras_sbp.L1Norm())
        ),
        "`insert_sbp(plain)`": lambda: keras_sbp.insert_sbp(plain),
        "`SBPLayer.call`": lambda: gate(batch, training=True),
    }


def main() -> None:
    """Prints one row per walk."""
    rows = []
    for name, call in walks().items():
        seen = walk(call)
        traced, analysed = seen.times("trace.py", "trace"), seen.times("analysis.py", "analyse")
        rows.append([name, str(len(seen.files)), str(seen.crossings), str(traced), str(analysed)])
    headings = ["walk", "files", "calls from file to file", "traces", "analyses"]
    sys.stdout.write(table(headings, rows) + "\n")


if __name__ == "__main__":
    main()
