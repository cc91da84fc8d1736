"""The best small networks, as files, and how fast they run: `python -m benchmarks.paper.store`.

After `python -m benchmarks.paper`, takes of each row in `SMALL` the seed with the lowest test error
and, among equals, the fewest multiply-accumulates; writes the rows in `STORED` to
benchmarks/models/; and measures LiteRT's latency in turns, on one thread: the network before
pruning, the small ones, and a network of the widths that the paper reports. Results go to
benchmarks/results/paper_speed.json.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import tempfile
from collections.abc import Sequence

import keras
from keras import layers
from rich.console import Console

import keras_sbp
from benchmarks.architectures.results import machine, versions, write_json
from benchmarks.paper import config, networks, stages
from benchmarks.paper.__main__ import RESULTS

MODELS = pathlib.Path(__file__).parents[1] / "models"
SMALL = {
    "lenet_500_300": ("lenet_500_300", "lenet_500_300_tiny"),
    "lenet5_caffe": ("lenet5_caffe", "lenet5_caffe_tiny"),
}
STORED = {"lenet_500_300": "lenet_500_300", "lenet5_caffe": "lenet5_caffe_tiny"}


def paper_lenet_500_300() -> keras.Model:
    """245-160-55."""
    image = x = keras.Input((28, 28, 1))
    x = keras.ops.take(layers.Flatten()(x), range(0, 735, 3), axis=1)
    for units in (160, 55):
        x = layers.Dense(units, activation="relu")(x)
    return keras.Model(image, layers.Dense(10)(x))


def paper_lenet5_caffe() -> keras.Model:
    """3-18-284-283; of 288 features 284 are read."""
    image = x = keras.Input((28, 28, 1))
    for channels in (3, 18):
        x = layers.MaxPooling2D()(layers.Conv2D(channels, 5, activation="relu")(x))
    x = keras.ops.take(layers.Flatten()(x), range(284), axis=1)
    return keras.Model(image, layers.Dense(10)(layers.Dense(283, activation="relu")(x)))


PAPER = {"lenet_500_300": paper_lenet_500_300, "lenet5_caffe": paper_lenet5_caffe}


def best_seed(row: dict) -> str:
    """Returns the seed with the lowest error, and among equals the fewest multiply-accumulates."""
    seeds = row["seeds"]
    return min(seeds, key=lambda seed: (seeds[seed]["error"], seeds[seed]["macs"]))


def _trained(folder: pathlib.Path, name: str, seed: str) -> keras.Model:
    path = stages.path(config.load(name), folder / "test" / f"seed-{seed}", "tune")
    return keras.saving.load_model(path, compile=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the files, and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/paper"))
    options = parser.parse_args(arguments)
    rows = json.loads((RESULTS / "paper.json").read_text())["rows"]
    MODELS.mkdir(exist_ok=True)
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        for network, names in SMALL.items():
            folder = pathlib.Path(scratch, network)
            folder.mkdir()
            files = {name: folder / f"{name}.tflite" for name in ("before", "paper", *names)}
            keras_sbp.export(networks.NETWORKS[network](), files["before"])
            keras_sbp.export(PAPER[network](), files["paper"])
            seeds = {name: best_seed(rows[name]) for name in names}
            for name in names:
                keras_sbp.export(_trained(options.folder, name, seeds[name]), files[name])
            stored = STORED[network]
            for suffix in (".keras", ".tflite"):
                small = _trained(options.folder, stored, seeds[stored])
                keras_sbp.export(small, MODELS / f"{network}{suffix}", overwrite=True)
            times = keras_sbp.benchmark(files, repeats=200, memory=False)
            times.print(Console())
            results[network] = {
                "seeds": seeds,
                "faster": {row.name: round(row.speedup, 2) for row in times.rows},
                "quartiles": {row.name: list(row.speedup_quartiles) for row in times.rows},
                "smaller": {row.name: round(row.size_ratio, 2) for row in times.rows},
                "bytes": {row.name: row.bytes for row in times.rows},
            }
    head = {"versions": versions(), "machine": machine()}
    write_json(RESULTS / "paper_speed.json", head | {"networks": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
