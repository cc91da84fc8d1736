"""Shows that a row for a GPU trains: `python -m benchmarks.paper.trial --data FOLDER`.

A few epochs without gates and a few with, on the first training images; what Keras logs goes to
benchmarks/results/paper_trial.json. This is no result: nothing is pruned, no test image is seen.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence

from rich.console import Console

from benchmarks.architectures.results import machine, versions, write_json
from benchmarks.paper import config, images, stages
from benchmarks.paper.__main__ import RESULTS
from benchmarks.paper.training import BATCH_SIZE
from keras_sbp.demo.data import Dataset


def shortened(row: config.Row, epochs: int) -> config.Row:
    """Returns a row of so many epochs per stage that ends before pruning."""
    dense, gated = (dataclasses.replace(part, epochs=epochs) for part in (row.dense, row.gated))
    return dataclasses.replace(row, dense=dense, gated=gated, prune=None, tune=None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", default="vgg_like_sbp", choices=config.names())
    parser.add_argument("--data", help="folder with cifar10.npz")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/paper/trial"))
    parser.add_argument("--epochs", type=int, default=5, help="per stage")
    parser.add_argument("--steps", type=int, default=25, help="per epoch")
    options = parser.parse_args(arguments)
    row = shortened(config.load(options.row), options.epochs)
    data = images.load(row.data, options.data, validate=False)
    count = options.steps * BATCH_SIZE
    data = Dataset(data.x_train[:count], data.y_train[:count], data.x_test, data.y_test)
    stages.run(row, data, options.folder, seed=0)
    result = {"row": row.name, "settings": row.settings(), "steps_per_epoch": options.steps}
    for stage in ("dense", "gated"):
        path = stages.path(row, options.folder, stage).with_suffix(".history.json")
        result[stage] = [_short(epoch) for epoch in json.loads(path.read_text())]
    Console().print(result)
    write_json(
        RESULTS / "paper_trial.json", {"versions": versions(), "machine": machine()} | result
    )
    return 0


def _short(epoch: dict) -> dict:
    gates = {name: gate["kept"] for name, gate in epoch["gates"].items()}
    return {name: epoch[name] for name in ("loss", "accuracy")} | {"kept": gates}


if __name__ == "__main__":
    sys.exit(main())
