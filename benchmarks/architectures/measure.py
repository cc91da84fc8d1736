"""Gates one network, prunes it, and compares: `python -m benchmarks.architectures.measure NAME`."""

from __future__ import annotations

import argparse
import json
import pathlib
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

import keras_sbp
from benchmarks.architectures.catalogue import Architecture, catalogue
from benchmarks.architectures.random_state import randomise
from keras_sbp.graph import analyse, find_gates, trace
from keras_sbp.graph.handler import kind
from keras_sbp.pruning import prune
from keras_sbp.pruning.decide import apply_decisions, decide
from keras_sbp.pruning.insert import insert_sbp

BATCH_SIZE = 16
TOLERANCE = 1e-4  # of the largest output
RELOADED = 1e-6
MACS_LEFT = 0.7
VARIATION = 1e-2  # of the largest output: how much examples must differ for a comparison to count


def measure(architecture: Architecture, seed: int = 0, litert: bool | None = None) -> dict:
    """Returns what pruning does to a network, as plain values.

    Args:
        architecture: the network.
        seed: of its weights, gates and inputs.
        litert: whether to export it; `None` leaves it to the architecture.
    """
    keras.utils.set_random_seed(seed)
    model = architecture.build()
    started = time.perf_counter()
    gated = insert_sbp(model)
    seconds = time.perf_counter() - started
    del model  # of large networks there is no room for a third copy
    row = measure_gated(gated, architecture, seed, litert)
    return row | {"insert_seconds": round(seconds, 2)}


def measure_gated(
    gated: keras.Model, architecture: Architecture, seed: int = 0, litert: bool | None = None
) -> dict:
    """Returns the same for a network that has gates already; its weights are changed."""
    batch = architecture.inputs(gated, BATCH_SIZE, np.random.default_rng(seed))
    randomise(gated, batch, seed)
    wall, cpu = time.perf_counter(), time.process_time()
    small, report = prune(gated, verify=False)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    expected, received = outputs(gated, batch), outputs(small, batch)
    gates = find_gates(gated)
    row = {
        "name": architecture.name,
        "input": [list(x.shape[1:]) for x in gated.inputs],
        "gates": len(gates),
        "units": sum(gate.units for gate in gates),
        "units_kept": sum(int(gate.keep().sum()) for gate in gates),
        "params_before": report.params_before,
        "params_after": report.params_after,
        "macs_before": report.macs_before,
        "macs_after": report.macs_after,
        "calls": len(trace(gated).ops),
        "prune_seconds": round(wall, 2),
        "prune_cpu_seconds": round(cpu, 2),
        "max_abs_error": relative_error(expected, received),
        "variation": min(_variation(y) for y in expected),
        "opaque": opaque_calls(gated),
        "other_layers": other_layers(small),
        "reloaded_error": _reloaded_error(small, batch),
    }
    if architecture.litert if litert is None else litert:
        row["litert"] = _exported(small, batch)
    row["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return row


def shortcomings(row: dict) -> list[str]:
    """Returns what a network was promised and did not get."""
    checks = {
        f"max|Δ| {row['max_abs_error']:.1e} of max|y|": row["max_abs_error"] <= TOLERANCE,
        "the examples hardly differ, so nothing was compared": row["variation"] >= VARIATION,
        f"MACs {row['macs_before']} → {row['macs_after']}": (
            row["macs_after"] <= MACS_LEFT * row["macs_before"]
        ),
        "another function after saving and loading": row["reloaded_error"] <= RELOADED,
        f"layers that are not of Keras: {row['other_layers']}": (
            set(row["other_layers"]) <= {each["class"] for each in row["opaque"]}
        ),
        "the .tflite file computes something else": (
            row.get("litert", {}).get("max_abs_error", 0) <= TOLERANCE
        ),
    }
    return [said for said, kept in checks.items() if not kept]


def outputs(model: keras.Model, batch: Any) -> list[np.ndarray]:
    """Returns what a network computes at inference, flat, in float64."""
    results = keras.tree.flatten(model(batch, training=False))
    return [keras.ops.convert_to_numpy(y).astype(np.float64) for y in results]


def relative_error(expected: Sequence[np.ndarray], received: Sequence[np.ndarray]) -> float:
    """Returns the largest difference, as a share of the largest number in the same output."""
    pairs = zip(expected, received, strict=True)
    return max(float(np.abs(x - y).max() / np.abs(x).max()) for x, y in pairs)


def opaque_calls(gated: keras.Model) -> list[dict]:
    """Returns the calls that pruning does not understand, those of a kind together."""
    graph = trace(gated)
    apply_decisions(graph, decide(graph, None))
    found = analyse(graph).opaque
    counts = Counter((type(op.operation).__name__, kind(op), why) for op, why in found.items())
    return [
        {"class": cls, "kind": what, "reason": why, "calls": n}
        for (cls, what, why), n in counts.items()
    ]


def other_layers(model: keras.Model) -> list[str]:
    """Returns the classes in a model that do not come with Keras."""
    classes = {type(operation) for operation in model.operations}
    return sorted(c.__name__ for c in classes if not c.__module__.startswith("keras.src."))


def _variation(y: np.ndarray) -> float:
    return float(np.ptp(y, axis=0).max() / np.abs(y).max())


def _reloaded_error(small: keras.Model, batch: Any) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "small.keras")
        small.save(path)
        loaded = keras.saving.load_model(path)
    return relative_error(outputs(small, batch), outputs(loaded, batch))


def _exported(small: keras.Model, batch: Any) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "small.tflite")
        report = keras_sbp.export(small, path, batch_size=BATCH_SIZE, verify=False)
        model = keras_sbp.deploy.litert.LiteRTModel(path)
        received = list(model(batch).values())
    return {
        "bytes": report.bytes,
        "operations": len(report.ops),
        "max_abs_error": relative_error(outputs(small, batch), received),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the measurements of one network as JSON, on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="as in the table of docs/architectures.md")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    row = measure(catalogue()[options.name], options.seed)
    sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
