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
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

import keras_sbp
from benchmarks.architectures.catalogue import Architecture, catalogue
from benchmarks.architectures.random_state import randomise
from keras_sbp.evidence.network import ProgramNetwork
from keras_sbp.insertion import insert_sbp
from keras_sbp.insertion.gates import with_decisions
from keras_sbp.layers import find_gates
from keras_sbp.program import analyse, trace
from keras_sbp.program.handler import kind
from keras_sbp.pruning import prune
from keras_sbp.pruning.decide import decide
from keras_sbp.rules import OwnRules

BATCH_SIZE = 16
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}  # of the largest output
RELOADED = 1e-6
MACS_LEFT = 0.7
VARIATION = 1e-2  # of the largest output: how much examples must differ for a comparison to count


def measure(
    architecture: Architecture, seed: int = 0, dtype: str = "float32", *, litert: bool = True
) -> dict:
    """Returns what pruning does to a network, as plain values.

    Args:
        architecture: the network.
        seed: of its weights, gates and inputs.
        dtype: `"float64"` tells errors from rounding.
        litert: whether to export it, if its architecture says so.
    """
    keras.config.set_dtype_policy(dtype)
    keras.utils.set_random_seed(seed)
    gated, insert_seconds = _timed(insert_sbp, architecture.build())
    batch = architecture.inputs(gated, BATCH_SIZE, np.random.default_rng(seed))
    randomise(gated, batch, seed)
    (small, report), prune_seconds = _timed(prune, gated, verify=False)
    expected, received = outputs(gated, batch), outputs(small, batch)
    gates = find_gates(gated)
    row = {
        "name": architecture.name,
        "dtype": dtype,
        "input": [list(x.shape[1:]) for x in gated.inputs],
        "gates": len(gates),
        "units": sum(gate.units for gate in gates),
        "units_kept": sum(int(gate.keep().sum()) for gate in gates),
        "params_before": report.params_before,
        "params_after": report.params_after,
        "macs_before": report.macs_before,
        "macs_after": report.macs_after,
        "calls": len(trace(gated).ops),
        "insert_seconds": insert_seconds,
        "prune_seconds": prune_seconds,
        "max_abs_error": relative_error(expected, received),
        "variation": min(_variation(y) for y in expected),
        "opaque": opaque_calls(gated),
        "other_layers": other_layers(small),
        "reloaded_error": _reloaded_error(small, batch),
    }
    if litert and architecture.litert and dtype == "float32":
        row["litert"] = _exported(small, batch)
    row["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return row


def shortcomings(row: dict) -> list[str]:
    """Returns what a network was promised and did not get."""
    tolerance = TOLERANCE[row["dtype"]]
    checks = {
        f"max|Δ| {row['max_abs_error']:.1e} of max|y|": row["max_abs_error"] <= tolerance,
        "the examples hardly differ, so nothing was compared": row["variation"] >= VARIATION,
        f"MACs {row['macs_before']} → {row['macs_after']}": (
            row["macs_after"] <= MACS_LEFT * row["macs_before"]
        ),
        "another function after saving and loading": row["reloaded_error"] <= RELOADED,
        f"layers that are not of Keras: {row['other_layers']}": (
            set(row["other_layers"]) <= {each["class"] for each in row["opaque"]}
        ),
        "the .tflite file computes something else": (
            row.get("litert", {}).get("max_abs_error", 0) <= tolerance
        ),
    }
    return [said for said, kept in checks.items() if not kept]


def _timed(function: Callable, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, float]]:
    """Returns a result, and the seconds it took: by the clock, and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function(*args, **kwargs)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return result, {"clock": round(wall, 2), "processor": round(cpu, 2)}


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
    program = trace(gated)
    decisions = decide(ProgramNetwork(program), OwnRules()).keep
    found = analyse(with_decisions(program, decisions)).opaque
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
        model = keras_sbp.formats.LiteRTModel(path)
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
    parser.add_argument("--dtype", choices=TOLERANCE, default="float32")
    options = parser.parse_args(arguments)
    row = measure(catalogue()[options.name], options.seed, options.dtype)
    sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
