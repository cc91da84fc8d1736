"""What prune() costs in time and memory: `python -m benchmarks.prune_cost`, on Linux.

ResNet50 and ResNet152 (images of 224 × 224, 1000 classes) get gates of which 40 % of the units
fall below the rule, and are saved. Each measurement is a process of its own. It first prunes a
network of two layers, so that what TensorFlow sets up at its first calls is not counted, and then
loads and prunes the gated network, without verification.

Time is that of `prune(gated, verify=False)`: by the clock, and of the processor over all threads.
The ratio per call of a layer or operation is that of processor times, which other programs on the
machine disturb less. Of several processes the median counts.

Memory is the peak of the resident set during that call (VmHWM, reset before it through
/proc/self/clear_refs), less the resident set before the gated network was loaded, in multiples of
the bytes of its weights. So it counts the gated network, the small one, everything between, and
whatever else loading and pruning leave in memory. TensorFlow's pool and glibc are told to give
freed memory back (`RETURNING`), or what loading has freed would be used again unseen.

The results are written to benchmarks/results/prune_cost.json, with the targets and whether they
are met. The exit code is 1 if one is missed.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import keras
import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.architectures.random_state import randomise_gate
from benchmarks.architectures.results import machine, versions, write_json
from keras_sbp.insertion import insert_sbp
from keras_sbp.layers import find_gates
from keras_sbp.program import trace
from keras_sbp.pruning import prune

JSON = pathlib.Path(__file__).parent / "results" / "prune_cost.json"
NETWORKS = ("ResNet50", "ResNet152")
DROP = 0.4
RETURNING = {
    "TF_ONEDNN_USE_SYSTEM_ALLOCATOR": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}
TARGETS = {"seconds_resnet50": 5.0, "per_call_ratio": 1.5, "memory_in_weights": 2.5}


def make(name: str, path: pathlib.Path) -> None:
    """Saves one network of `keras.applications` with gates."""
    keras.utils.set_random_seed(0)
    gated = insert_sbp(getattr(keras.applications, name)(weights=None))
    rng = np.random.default_rng(0)
    for gate in find_gates(gated):
        randomise_gate(gate, rng, DROP)
    gated.save(path)


def measure(path: pathlib.Path) -> dict:
    """Prunes a saved network in this process."""
    _prune_something_small()
    empty = _reset_peak()
    gated = keras.saving.load_model(path)
    weights, loaded = _bytes(gated), _reset_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    small, report = prune(gated, verify=False)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = _memory("VmHWM")
    return {
        "calls": len(trace(gated).ops),
        "macs_before": report.macs_before,
        "macs_after": report.macs_after,
        "seconds": round(wall, 3),
        "cpu_seconds": round(cpu, 3),
        "weights_bytes": weights,
        "small_weights_bytes": _bytes(small),
        "resident_bytes": {"empty": empty, "loaded": loaded, "peak": peak},
        "memory_in_weights": round((peak - empty) / weights, 3),
    }


def _prune_something_small() -> None:
    x = keras.Input((8, 8, 3))
    y = keras.layers.Conv2D(4, 3)(x)
    y = keras.layers.BatchNormalization()(y)
    y = keras.layers.Flatten()(keras.layers.ReLU()(y))
    gated = insert_sbp(keras.Model(x, keras.layers.Dense(2)(y)))
    for gate in find_gates(gated):
        randomise_gate(gate, np.random.default_rng(0), DROP)
    prune(gated, verify=False)


def _bytes(model: keras.Model) -> int:
    return sum(math.prod(w.shape) * np.dtype(w.dtype).itemsize for w in model.weights)


def _reset_peak() -> int:
    """Returns the resident set in bytes; from here on VmHWM is its peak."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(which: str) -> int:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(which))
    return int(line.split()[1]) * 1024


def summarise(runs: dict[str, dict[str, list[dict]]]) -> dict:
    """Returns the figures that have targets."""
    wall, per_call = {}, {}
    for name, rows in runs["time"].items():
        wall[name] = statistics.median(row["seconds"] for row in rows)
        cpu = statistics.median(row["cpu_seconds"] for row in rows)
        per_call[name] = cpu / rows[0]["calls"]
    return {
        "seconds_resnet50": wall["ResNet50"],
        "per_call_ratio": per_call["ResNet152"] / per_call["ResNet50"],
        "memory_in_weights": max(
            row["memory_in_weights"] for rows in runs["memory"].values() for row in rows
        ),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures in processes of their own; the hidden options are for these."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=pathlib.Path, default=JSON, help="the file of results")
    parser.add_argument("--repeats", type=int, default=3, help="processes for each time")
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.make:
        make(options.make[0], pathlib.Path(options.make[1]))
        return 0
    if options.measure:
        sys.stdout.write(json.dumps(measure(options.measure)) + "\n")
        return 0
    console = Console()
    runs = _run_all(options.repeats, console)
    figures = summarise(runs)
    met = {name: figures[name] <= target for name, target in TARGETS.items()}
    head = {"versions": versions(), "machine": machine(), "seed": 0, "drop": DROP}
    results = {"targets": TARGETS, "figures": figures, "met": met, "runs": runs}
    write_json(options.json, head | results)
    for name, target in TARGETS.items():
        said = "" if met[name] else ": missed"
        console.print(f"{name}: {figures[name]:.2f}, target {target}{said}")
    return int(not all(met.values()))


def _run_all(repeats: int, console: Console) -> dict[str, dict[str, list[dict]]]:
    runs: dict = {what: {name: [] for name in NETWORKS} for what in ("time", "memory")}
    rounds = [("time", name) for name in NETWORKS] * repeats
    rounds += [("memory", name) for name in NETWORKS]
    with tempfile.TemporaryDirectory() as folder:
        files = {name: pathlib.Path(folder, f"{name}.keras") for name in NETWORKS}
        for name, path in files.items():
            _apart("--make", name, str(path))
        for what, name in track(rounds, "Pruning", console=console):
            changes = RETURNING if what == "memory" else {}
            runs[what][name].append(json.loads(_apart("--measure", str(files[name]), **changes)))
    return runs


def _apart(*arguments: str, **changes: str) -> str:
    """Runs this file in a process with a changed environment; returns the last printed line."""
    command = [sys.executable, "-m", "benchmarks.prune_cost", *arguments]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | changes
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout.strip().rpartition("\n")[-1]


if __name__ == "__main__":
    sys.exit(main())
