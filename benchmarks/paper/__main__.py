"""The paper's table, measured: `python -m benchmarks.paper --data FOLDER`.

Each row is a file in benchmarks/paper/configs. A row's network is trained without gates, with
gates, pruned, and trained again as small, with every seed; the test images are looked at once,
after the last epoch. What is finished is not done again: stopped in the middle, the same command
goes on from the last whole epoch, and rows share what they have in common. Results go to
benchmarks/results/paper.json.

With `--validate`, the last 10,000 training images are kept away from training and are what is
measured in place of the test images: that is how settings are chosen.
"""

from __future__ import annotations

import argparse
import functools
import json
import pathlib
import sys
from collections.abc import Sequence

import keras
import numpy as np
from rich.console import Console

from benchmarks.architectures.results import machine, versions, write_json
from benchmarks.paper import config, images, stages
from keras_sbp.demo.data import Dataset
from keras_sbp.program import macs, trace

RESULTS = pathlib.Path(__file__).parents[1] / "results"


def measure(row: config.Row, data: Dataset, folder: pathlib.Path, seed: int) -> dict:
    """Returns what one row gives with one seed."""
    models = stages.run(row, data, folder, seed)
    small = models.get("tune", models.get("prune", models["dense"]))
    result = {
        "error": _error(small, data),
        "dense_error": _error(models["dense"], data),
        "macs": _macs(small),
        "dense_macs": _macs(models["dense"]),
        "weights": small.count_params(),
        "kernels": {
            layer.name: list(layer.kernel.shape)
            for layer in small.layers
            if hasattr(layer, "kernel")
        },
        "backend": keras.backend.backend(),
    }
    if "gated" in models:
        result["gated_error"] = _error(models["gated"], data)
    if "prune" in models:
        result["pruned_error"] = _error(models["prune"], data)
        source = models.get("gated", models["dense"])
        result["moved"] = _moved(source, models["prune"], data)
    return result


def _error(model: keras.Model, data: Dataset) -> float:
    """In percent."""
    return round(100 * float(np.mean(_logits(model, data).argmax(-1) != data.y_test)), 4)


def _moved(source: keras.Model, small: keras.Model, data: Dataset) -> float:
    """How far pruning moved the logits, relative to how far they spread (root mean squares)."""
    before = _logits(source, data)
    moved = np.square(_logits(small, data) - before).mean()
    return float(f"{np.sqrt(moved / before.var()):.3g}")


def _logits(model: keras.Model, data: Dataset) -> np.ndarray:
    return model.predict(data.x_test, batch_size=1000, verbose=0)


def _macs(model: keras.Model) -> int:
    return sum(macs(op) for op in trace(model).ops)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the rows that are asked for and not known yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = config.names()
    possible = [name for name in names if not config.load(name).needs_gpu]
    parser.add_argument("--rows", nargs="+", choices=names, default=possible)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", help="folder with mnist.npz and cifar10.npz")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/paper"))
    parser.add_argument("--validate", action="store_true", help="measure on held-out images")
    options = parser.parse_args(arguments)
    console = Console()
    folder, path = options.folder / "test", RESULTS / "paper.json"
    if options.validate:
        folder, path = options.folder / "validation", RESULTS / "paper_validation.json"
    load = functools.cache(functools.partial(images.load, validate=options.validate))
    for name in options.rows:
        row = config.load(name)
        for seed in options.seeds:
            if not _is_known(path, row, seed):
                console.print(f"{name}, seed {seed}")
                data = load(row.data, options.data)
                result = measure(row, data, folder / f"seed-{seed}", seed)
                console.print(result)
                _add(path, row, seed, result)
    return 0


def _is_known(path: pathlib.Path, row: config.Row, seed: int) -> bool:
    known = _read(path)["rows"].get(row.name, {})
    return known.get("settings") == row.settings() and str(seed) in known["seeds"]


def _add(path: pathlib.Path, row: config.Row, seed: int, result: dict) -> None:
    """Writes one result; results of other settings of this row are forgotten."""
    rows = _read(path)["rows"]
    known = rows.get(row.name, {})
    if known.get("settings") != row.settings():
        known = {"settings": row.settings(), "seeds": {}}
    known["seeds"] = dict(sorted((known["seeds"] | {str(seed): result}).items()))
    rows = dict(sorted((rows | {row.name: known}).items()))
    head = {"versions": versions("jax", "torch", "torch-pruning"), "machine": machine()}
    write_json(path, head | {"rows": rows})


def _read(path: pathlib.Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {"rows": {}}


if __name__ == "__main__":
    sys.exit(main())
