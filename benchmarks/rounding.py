"""How much of the saved work is saved time, and what rounding widths up does to it:
`python -m benchmarks.rounding`.

Networks with random weights are pruned by weight norms to at most a fraction of their
multiply-accumulates: once to whatever widths come out, and with widths that are multiples of 4, 8
and 16 (`round_to`). LiteRT times each against the unpruned network, in turns, on one thread and one
example. The efficiency is the speed-up divided by how many times fewer multiply-accumulates remain.

Files that are in the folder already are not made again, so that it can be measured again when the
machine is calm.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Callable, Sequence

import keras
from rich.console import Console
from rich.progress import track
from rich.table import Table

import keras_sbp
from benchmarks.architectures.results import machine, versions, write_json
from keras_sbp.demo.recipes import lenet5

JSON = pathlib.Path(__file__).parent / "results" / "rounding.json"
MULTIPLES = (1, 4, 8, 16)
FRACTIONS = (0.5, 0.25)


def application(name: str, size: int) -> Callable[[], keras.Model]:
    """Returns what makes a network of `keras.applications` for square images."""
    make = getattr(keras.applications, name)
    return lambda: make(weights=None, input_shape=(size, size, 3))


NETWORKS: dict[str, Callable[[], keras.Model]] = {
    "LeNet-5-Caffe": lambda: lenet5(gated=False),
    "MobileNetV2, 128 × 128": application("MobileNetV2", 128),
    "MobileNetV2, 224 × 224": application("MobileNetV2", 224),
    "ResNet50, 224 × 224": application("ResNet50", 224),
}


def pruned(model: keras.Model, fraction: float, multiple: int) -> tuple[keras.Model, float]:
    """Returns a network with at most a fraction of the work, and how many times less it is.

    Residual streams can shrink, too; without that, MobileNetV2 keeps 28 % at least.
    """
    gated = keras_sbp.insert_sbp(
        model, tie_residual=True, mu_initializer=1.0, log_sigma_initializer=-20.0
    )
    rule = keras_sbp.Budget(macs=fraction, base=keras_sbp.L2Norm(), min_keep=1)
    small, report = keras_sbp.prune(gated, rule, round_to=multiple, verify=False)
    return small, report.macs_before / report.macs_after


def prepared(name: str, folder: pathlib.Path) -> list[dict]:
    """Writes the network, and what is left of it by fraction and multiple; returns rows."""
    index = folder / f"{name}.json"
    if index.exists():
        return json.loads(index.read_text())
    keras.utils.set_random_seed(0)
    model = NETWORKS[name]()
    keras_sbp.export(model, folder / f"{name}.tflite", verify=False, overwrite=True)
    rows = []
    for fraction in FRACTIONS:
        for multiple in MULTIPLES:
            try:
                small, fewer = pruned(model, fraction, multiple)
            except ValueError:  # widths of 16 may be too much for the budget
                continue
            path = folder / f"{name}-{len(rows)}.tflite"
            keras_sbp.export(small, path, verify=False, overwrite=True)
            row = {"network": name, "target": fraction, "round_to": multiple}
            rows.append(row | {"fewer_macs": round(fewer, 3)})
    write_json(index, rows)
    return rows


def measure(name: str, rows: list[dict], folder: pathlib.Path) -> list[dict]:
    """Returns the rows with how many times faster each file is than the unpruned one."""
    files = [f"{name}.tflite", *(f"{name}-{number}.tflite" for number in range(len(rows)))]
    times = keras_sbp.benchmark({each: folder / each for each in files}, memory=False).rows[1:]
    return [
        row
        | {
            "faster": round(time.speedup, 3),
            "faster_quartiles": [round(each, 3) for each in time.speedup_quartiles],
            "efficiency": round(time.speedup / row["fewer_macs"], 3),
        }
        for row, time in zip(rows, times, strict=True)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/rounding"))
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    console = Console()
    found = {
        name: prepared(name, options.folder)
        for name in track(options.networks, "pruning", console=console)
    }
    console.print("Now measuring: nothing else should run.")
    rows = [row for name in found for row in measure(name, found[name], options.folder)]
    write_json(JSON, {"versions": versions(), "machine": machine(), "rows": rows})
    table = Table("network", "MACs wanted", "rounded to", "fewer MACs", "faster", "efficiency")
    for row in rows:
        columns = ("network", "target", "round_to", "fewer_macs", "faster", "efficiency")
        table.add_row(*(str(row[key]) for key in columns))
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
