"""When rounding widths up costs no time: `python -m benchmarks.rounding`.

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
from collections.abc import Callable, Sequence

import keras
from rich.console import Console
from rich.progress import track
from rich.table import Table

import keras_sbp
from benchmarks.architectures.results import machine, versions, write_json
from keras_sbp.cli.recipes import lenet5
from keras_sbp.deploy.latency import LatencyYardstick

JSON = pathlib.Path(__file__).parent / "results" / "rounding.json"
MULTIPLES = (1, 4, 8, 16)
FRACTIONS = (0.5, 0.25)


def mobilenet_v2() -> keras.Model:
    """MobileNetV2 for images of 128 × 128."""
    return keras.applications.MobileNetV2((128, 128, 3), weights=None, classes=100)


def resnet50() -> keras.Model:
    """ResNet50 for images of 128 × 128."""
    return keras.applications.ResNet50(weights=None, input_shape=(128, 128, 3), classes=100)


NETWORKS: dict[str, Callable[[], keras.Model]] = {
    "LeNet-5-Caffe": lambda: lenet5(gated=False),
    "MobileNetV2": mobilenet_v2,
    "ResNet50": resnet50,
}


def measure(name: str) -> list[dict]:
    """Returns one row per fraction and multiple."""
    keras.utils.set_random_seed(0)
    model = NETWORKS[name]()
    yardstick = LatencyYardstick(model)
    # Residual streams can shrink, too; without that, MobileNetV2 keeps 28 % at least.
    model = keras_sbp.insert_sbp(
        model, tie_residual=True, mu_initializer=1.0, log_sigma_initializer=-20.0
    )
    rows = []
    for fraction in FRACTIONS:
        rule = keras_sbp.Budget(macs=fraction, base=keras_sbp.L2Norm())
        for multiple in MULTIPLES:
            try:
                small, report = keras_sbp.prune(model, rule, round_to=multiple, verify=False)
            except ValueError:  # widths of 16 may be too much for the budget
                continue
            fewer = report.macs_before / report.macs_after
            faster = 1 / yardstick.fraction(small)
            rows.append(
                {
                    "network": name,
                    "target": fraction,
                    "round_to": multiple,
                    "fewer_macs": round(fewer, 2),
                    "faster": round(faster, 2),
                    "efficiency": round(faster / fewer, 2),
                }
            )
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
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
