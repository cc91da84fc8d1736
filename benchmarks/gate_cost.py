"""What gates cost while a network trains: `python -m benchmarks.gate_cost`.

Each network is trained on random data as it is, with gates behind its hidden layers, and with
`Dropout` at the same places (batch size 128). The three take turns, so that what else the machine
does falls on all of them alike; a step's time is that of an epoch of `fit()` from its first batch
on, divided by its steps, and the median over the turns counts. Ratios are of such medians.

"compile" is the time of a first `fit()` of one step on a new model, which compiles; here too the
plain and the gated network take turns. "inference" is `predict_on_batch` of the gated, unpruned
network beside the plain one.

Every backend is a process of its own. The results are written to
benchmarks/results/gate_cost.json, with the targets and whether they are met. The exit code is 1 if
one is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers
from rich.console import Console
from rich.table import Table

from benchmarks.architectures.results import machine, versions, write_json
from keras_sbp import SBPLayer, insert_sbp
from keras_sbp.layers import find_gates

JSON = pathlib.Path(__file__).parent / "results" / "gate_cost.json"
BACKENDS = ("tensorflow", "jax", "torch")
BATCH = 128
# What each figure may be at most, by network.
TARGETS = {
    "mlp": {"step": 1.15, "inference": 1.05},
    "lenet5": {"step": 1.05, "compile": 1.3, "inference": 1.05, "dropout": 1.0},
    "resnet20": {"step": 1.02, "inference": 1.05, "dropout": 1.0},
    "resnet50": {"compile": 1.5},
}


def mlp() -> keras.Model:
    """784-500-300-10; gates behind the two hidden layers."""
    x = image = keras.Input((784,))
    for units in (500, 300):
        x = layers.Dense(units, activation="relu")(x)
    return keras.Model(image, layers.Dense(10)(x))


def lenet5() -> keras.Model:
    """20 and 50 channels, 500 dense units."""
    x = image = keras.Input((28, 28, 1))
    for channels in (20, 50):
        x = layers.MaxPooling2D()(layers.Conv2D(channels, 5, activation="relu")(x))
    x = layers.Dense(500, activation="relu")(layers.Flatten()(x))
    return keras.Model(image, layers.Dense(10)(x))


def resnet20() -> keras.Model:
    """Three stages of three blocks, 16 to 64 channels, for images of 32 × 32."""
    image = keras.Input((32, 32, 3))
    x = _normalised(image, 16, 3)
    for stage, channels in enumerate((16, 32, 64)):
        for block in range(3):
            stride = 2 if stage and not block else 1
            y = _normalised(x, channels, 3, stride)
            y = layers.BatchNormalization()(_convolution(channels, 3)(y))
            if stride > 1:
                x = layers.BatchNormalization()(_convolution(channels, 1, stride)(x))
            x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10)(x))


def resnet50() -> keras.Model:
    """As in `keras.applications`, for images of 32 × 32; 37 gates with its residual streams."""
    x = image = keras.Input((32, 32, 3))
    x = keras.applications.ResNet50(weights=None, include_top=False, pooling="avg")(x)
    return keras.Model(image, layers.Dense(10)(x))


def _convolution(channels: int, size: int, stride: int = 1) -> layers.Layer:
    return layers.Conv2D(channels, size, stride, padding="same", use_bias=False)


def _normalised(x: Any, channels: int, size: int, stride: int = 1) -> Any:
    x = layers.BatchNormalization()(_convolution(channels, size, stride)(x))
    return layers.ReLU()(x)


NETWORKS: dict[str, Callable[[], keras.Model]] = {
    function.__name__: function for function in (mlp, lenet5, resnet20, resnet50)
}
# How many steps an epoch has; 0: only compiling is measured.
STEPS = {"mlp": 100, "lenet5": 30, "resnet20": 6, "resnet50": 0}


class _Stopwatch(keras.callbacks.Callback):
    """The time from an epoch's first batch to its end."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._begin = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.seconds = time.perf_counter() - self._begin


def plain(name: str) -> keras.Model:
    """Returns the compiled network."""
    return _compiled(NETWORKS[name]())


def gated(name: str) -> keras.Model:
    """Returns the compiled network with gates."""
    options = {"tie_residual": True} if name == "resnet50" else {}
    model = insert_sbp(NETWORKS[name](), verbose=0, **options)
    for gate in find_gates(model):
        gate.set_steps_per_epoch(100)  # as SNRMonitor does
    return _compiled(model)


def dropout(name: str) -> keras.Model:
    """Returns the compiled network with Dropout where the gates would be."""

    def replaced(layer: layers.Layer) -> layers.Layer:
        return layers.Dropout(0.5) if isinstance(layer, SBPLayer) else _again(layer)

    return _compiled(keras.models.clone_model(gated(name), clone_function=replaced))


def _again(layer: layers.Layer) -> layers.Layer:
    return type(layer).from_config(layer.get_config())


def _compiled(model: keras.Model) -> keras.Model:
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def _data(model: keras.Model, steps: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((steps * BATCH, *model.input_shape[1:]), "float32")
    return x, rng.integers(0, 10, len(x))


def measure(name: str, rounds: int, compilations: int) -> dict[str, list[float]]:
    """Returns seconds, of one backend, by what was measured."""
    times: dict[str, list[float]] = {}
    kinds = (plain, gated, dropout) if STEPS[name] else (plain, gated)
    # The first model of a process pays for what the backend sets up.
    for turn in range(compilations + 1):
        models = {make.__name__: make(name) for make in kinds}
        for kind, model in models.items():
            x, y = _data(model, 1)
            begin = time.perf_counter()
            model.fit(x, y, batch_size=BATCH, verbose=0)
            if turn:
                times.setdefault(f"compile {kind}", []).append(time.perf_counter() - begin)
    if STEPS[name]:
        _measure_steps(models, STEPS[name], rounds, times)
        del models["dropout"]
        _measure_inference(models, rounds, times)
    return times


def _measure_steps(models: dict, steps: int, rounds: int, times: dict) -> None:
    x, y = _data(models["plain"], steps)
    watch = _Stopwatch()
    for turn in range(rounds + 1):
        for kind, model in models.items():
            model.fit(x, y, batch_size=BATCH, verbose=0, callbacks=[watch])
            if turn:
                times.setdefault(f"step {kind}", []).append(watch.seconds / steps)


def _measure_inference(models: dict, rounds: int, times: dict) -> None:
    x, _ = _data(models["plain"], 1)
    for turn in range(10 * rounds + 1):
        for kind, model in models.items():
            begin = time.perf_counter()
            model.predict_on_batch(x)
            if turn:
                times.setdefault(f"inference {kind}", []).append(time.perf_counter() - begin)


def ratios(times: dict[str, list[float]]) -> dict[str, float]:
    """Returns the gated network's times in multiples of the plain one's, and of Dropout's."""
    median = {what: statistics.median(values) for what, values in times.items()}
    found = {
        what: median[f"{what} gated"] / median[f"{what} plain"]
        for what in ("step", "compile", "inference")
        if f"{what} plain" in median
    }
    if "step dropout" in median:
        found["dropout"] = median["step gated"] / median["step dropout"]
    return {what: round(value, 3) for what, value in found.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures each backend in a process of its own; the hidden option is for these."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=pathlib.Path, default=JSON, help="the file of results")
    parser.add_argument("--backends", nargs="+", default=BACKENDS, choices=BACKENDS)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=15, help="turns of each network")
    parser.add_argument("--compilations", type=int, default=3, help="new models of each network")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        times = measure(options.measure, options.rounds, options.compilations)
        sys.stdout.write(json.dumps(times) + "\n")
        return 0
    rows: dict[str, dict] = {}
    for backend in options.backends:
        for name in options.networks:
            times = _apart(backend, name, options.rounds, options.compilations)
            medians = {what: statistics.median(values) for what, values in times.items()}
            rows.setdefault(backend, {})[name] = {"ratios": ratios(times), "seconds": medians}
            write_json(
                options.json,
                {"versions": versions("jax", "torch"), "machine": machine()}
                | {"targets": TARGETS, "backends": rows},
            )
    return _show(rows)


def _apart(backend: str, name: str, rounds: int, compilations: int) -> dict[str, list[float]]:
    """Runs this file in a process of one backend; returns what it prints last."""
    command = [sys.executable, "-m", "benchmarks.gate_cost", "--measure", name]
    command += ["--rounds", str(rounds), "--compilations", str(compilations)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": backend}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().rpartition("\n")[-1])


def _show(rows: dict[str, dict]) -> int:
    table = Table("backend", "network", "what", "ratio", "target", "")
    missed = 0
    for backend, networks in rows.items():
        for name, row in networks.items():
            for what, ratio in row["ratios"].items():
                target = TARGETS[name].get(what)
                is_missed = target is not None and ratio > target
                missed += is_missed
                said = "missed" if is_missed else ""
                table.add_row(backend, name, what, f"{ratio:.2f}", str(target or "–"), said)
    Console().print(table)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
