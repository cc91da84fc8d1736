"""What the demonstrations do, what they measure, and how it is told."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import platform
from typing import Any

import keras
import numpy as np
from rich.table import Table

from keras_sbp.benchmarking.latency import compare_latency
from keras_sbp.demo.data import Dataset
from keras_sbp.demo.recipes import Recipe, Targets
from keras_sbp.demo.training import train
from keras_sbp.exporting import export
from keras_sbp.formats.litert_model import LiteRTModel
from keras_sbp.layers import find_gates
from keras_sbp.printing import table
from keras_sbp.pruning import prune
from keras_sbp.version import __version__


@dataclasses.dataclass(frozen=True)
class Check:
    """One target and whether it was met."""

    met: bool
    said: str


def travel(recipe: Recipe, data: Dataset, folder: pathlib.Path, seed: int) -> dict[str, Any]:
    """Gate, train, prune, export, measure.

    Args:
        recipe: What to do it with.
        data: The data set.
        folder: Where the files go.
        seed: Seed of everything random.

    Returns:
        The results as plain values; they are in `results.json` of the folder as well.
    """
    baseline = train(recipe, False, data, folder, seed)
    gated = train(recipe, True, data, folder, seed)
    small, report = prune(gated.model)
    small.save(folder / "pruned.keras")
    files = {"ungated": baseline.model, "pruned": small}
    results: dict[str, Any] = {
        "dataset": recipe.name,
        "seed": seed,
        "epochs": {"ungated": recipe.baseline_epochs, "gated": recipe.gated_epochs},
        "versions": _versions(),
        "training_seconds": round(baseline.seconds + gated.seconds, 1),
        "training_cpu_seconds": round(baseline.cpu_seconds + gated.cpu_seconds, 1),
        "units": {
            gate.name: {"before": int(gate.units), "kept": int(gate.keep().sum())}
            for gate in find_gates(gated.model)
        },
        "gated_accuracy": _keras_accuracy(gated.model, data),
        "prune_max_abs_error": report.max_abs_error,
        "ungated": {"parameters": report.params_before, "macs": report.macs_before},
        "pruned": {"parameters": report.params_after, "macs": report.macs_after},
    }
    for name, model in files.items():
        results[name] |= _exported(name, model, data, folder)
    latency = compare_latency(folder / "ungated.tflite", folder / "pruned.tflite")
    results["latency"] = dataclasses.asdict(latency)
    _write_json(folder / "results.json", results)
    return results


def check(results: dict[str, Any], targets: Targets) -> list[Check]:
    """Compare results with targets.

    Args:
        results: From `travel`.
        targets: What was to be reached.

    Returns:
        One `Check` per target that is set.
    """
    before, after = results["ungated"], results["pruned"]
    checks = []

    def at_most(what: str, value: float, limit: float | None, unit: str) -> None:
        if limit is not None:
            said = f"{what}: {value:.2f}{unit}, at most {limit:g}{unit} wanted"
            checks.append(Check(value <= limit + 1e-9, said))

    def at_least(what: str, value: float, limit: float | None) -> None:
        if limit is not None:
            checks.append(
                Check(value >= limit, f"{what}: {value:.1f}x, at least {limit:g}x wanted")
            )

    loss = 100 * (before["accuracy"] - after["accuracy"])
    at_most("accuracy lost by pruning", loss, targets.accuracy_loss, " points")
    at_most("test error", 100 * (1 - after["accuracy"]), targets.test_error, " %")
    at_least("fewer MACs", before["macs"] / after["macs"], targets.macs_ratio)
    ratio = before["tflite_bytes"] / after["tflite_bytes"]
    at_least("smaller .tflite file", ratio, targets.bytes_ratio)
    at_most(
        "processor time of training", results["training_cpu_seconds"], targets.cpu_seconds, " s"
    )
    return checks


def as_table(results: dict[str, Any], width: int) -> Table:
    """The table of a demonstration, before against after, as wide as this at most."""
    before, after, latency = results["ungated"], results["pruned"], results["latency"]
    counts = {
        "parameters": "parameters",
        "MACs": "macs",
        ".tflite bytes": "tflite_bytes",
        "SavedModel bytes": "saved_model_bytes",
    }
    rows = [
        ["test accuracy (LiteRT)", *(f"{100 * r['accuracy']:.2f} %" for r in (before, after)), ""]
    ]
    for name, key in counts.items():
        ratio = f"{before[key] / after[key]:.1f}x fewer"
        rows.append([name, f"{before[key]:,}", f"{after[key]:,}", ratio])
    first, second = latency["first_us"], latency["second_us"]
    ratio = f"{latency['ratio']:.1f}x faster"
    rows.append(["LiteRT latency, 1 thread", f"{first:.1f} us", f"{second:.1f} us", ratio])
    units = results["units"].values()
    total, kept = (sum(u[key] for u in units) for key in ("before", "kept"))
    each = "-".join(str(u["kept"]) for u in units)
    rows.append(
        ["gated units", f"{total}", f"{kept} ({each})", f"{total / max(kept, 1):.1f}x fewer"]
    )
    wall, cpu = results["training_seconds"], results["training_cpu_seconds"]
    shown = table(["", "ungated", "pruned", ""], rows, width)
    shown.title = f"{results['dataset']}, trained for {wall:.0f} s ({cpu:.0f} s of processor time)"
    shown.title_justify, shown.title_style = "left", "bold"
    return shown


def _exported(name: str, model: keras.Model, data: Dataset, folder: pathlib.Path) -> dict[str, Any]:
    tflite = export(model, folder / f"{name}.tflite", overwrite=True)
    saved = export(model, folder / f"{name}_saved_model", overwrite=True)
    return {
        "accuracy": _litert_accuracy(tflite.path, data),
        "keras_accuracy": _keras_accuracy(model, data),
        "tflite_bytes": tflite.bytes,
        "tflite_ops": list(tflite.ops),
        "tflite_max_abs_error": tflite.max_abs_error,
        "saved_model_bytes": saved.bytes,
    }


def _litert_accuracy(path: str, data: Dataset) -> float:
    model = LiteRTModel(path)
    hits = 0
    for image, label in zip(data.x_test, data.y_test, strict=True):
        (logits,) = model(image[np.newaxis]).values()
        hits += int(logits.argmax() == label)
    return hits / len(data.y_test)


def _keras_accuracy(model: keras.Model, data: Dataset) -> float:
    logits = model.predict(data.x_test, batch_size=500, verbose=0)
    return float(np.mean(logits.argmax(axis=-1) == data.y_test))


def _versions() -> dict[str, str]:
    import tensorflow

    return {
        "keras_sbp": __version__,
        "keras": keras.__version__,
        "tensorflow": tensorflow.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _write_json(path: pathlib.Path, values: dict[str, Any]) -> None:
    scratch = path.with_name(f"{path.name}.new")
    scratch.write_text(json.dumps(values, indent=2) + "\n")
    os.replace(scratch, path)
