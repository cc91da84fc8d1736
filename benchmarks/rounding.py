"""How much of the saved work is saved time, and what rounding widths up does to it:
`python -m benchmarks.rounding`.

Networks with random weights are pruned by weight norms to at most a fraction of their
multiply-accumulates: once to whatever widths come out, and with widths that are multiples of 4, 8
and 16 (`round_to`). LiteRT times each against the unpruned network, in turns, on one thread and one
example. The efficiency is the speed-up divided by how many times fewer multiply-accumulates remain.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import tempfile
from collections.abc import Callable, Sequence

import keras
from rich.console import Console
from rich.progress import track
from rich.table import Table

import keras_sbp
from benchmarks.architectures.results import machine, versions, write_json
from keras_sbp.cli.recipes import lenet5

JSON = pathlib.Path(__file__).parent / "results" / "rounding.json"
MULTIPLES = (1, 4, 8, 16)
FRACTIONS = (0.5, 0.25)


def application(name: str, size: int) -> Callable[[], keras.Model]:
    """Returns what makes a network of `keras.applications` for square images."""
    make = getattr(keras.applications, name)
    return lambda: make(weights=None, input_shape=(size, size, 3))


NETWORKS: dict[str, Callable[[], keras.Model]] = {
    "LeNet-5-Caffe": lambda: lenet5(gated=False),
    **{
        f"{name}, {size} × {size}": application(name, size)
        for name in ("MobileNetV2", "ResNet50")
        for size in (128, 224)
    },
}


def pruned(model: keras.Model, fraction: float, multiple: int) -> tuple[keras.Model, float]:
    """Returns a network with at most a fraction of the work, and how many times less it is.

    Residual streams can shrink, too; without that, MobileNetV2 keeps 28 % at least.
    """
    gated = keras_sbp.insert_sbp(
        model, tie_residual=True, mu_initializer=1.0, log_sigma_initializer=-20.0
    )
    rule = keras_sbp.Budget(macs=fraction, base=keras_sbp.L2Norm())
    small, report = keras_sbp.prune(gated, rule, round_to=multiple, verify=False)
    return small, report.macs_before / report.macs_after


def measure(name: str) -> list[dict]:
    """Returns one row per fraction and multiple."""
    keras.utils.set_random_seed(0)
    model = NETWORKS[name]()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = {"whole": pathlib.Path(folder, "whole.tflite")}
        keras_sbp.export(model, files["whole"], verify=False)
        for fraction in FRACTIONS:
            for multiple in MULTIPLES:
                try:
                    small, fewer = pruned(model, fraction, multiple)
                except ValueError:  # widths of 16 may be too much for the budget
                    continue
                path = pathlib.Path(folder, f"{len(rows)}.tflite")
                keras_sbp.export(small, path, verify=False)
                files[str(path)] = path
                rows.append({"network": name, "target": fraction, "round_to": multiple})
                rows[-1]["fewer_macs"] = round(fewer, 3)
        times = keras_sbp.benchmark(files, memory=False).rows[1:]
    for row, measured in zip(rows, times, strict=True):
        row["faster"] = round(measured.speedup, 3)
        row["faster_quartiles"] = [round(each, 3) for each in measured.speedup_quartiles]
        row["efficiency"] = round(measured.speedup / row["fewer_macs"], 3)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and writes the file; other networks' rows stay in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    options = parser.parse_args(arguments)
    console = Console()
    rows = json.loads(JSON.read_text())["rows"] if JSON.exists() else []
    for name in track(options.networks, "measuring", console=console):
        rows = [row for row in rows if row["network"] != name] + measure(name)
        write_json(JSON, {"versions": versions(), "machine": machine(), "rows": rows})
    table = Table("network", "MACs wanted", "rounded to", "fewer MACs", "faster", "efficiency")
    for row in rows:
        columns = ("network", "target", "round_to", "fewer_macs", "faster", "efficiency")
        table.add_row(*(str(row[key]) for key in columns))
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
