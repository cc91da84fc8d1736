"""The report's figures, against counts by hand."""

from __future__ import annotations

import io
import json

from keras import Input, Sequential, layers
from rich.console import Console

from keras_sbp.graph import find_gates
from keras_sbp.pruning import PruneReport, prune
from tests.pruning.oracle import drop_units, gate, randomise


def lenet() -> PruneReport:
    model = Sequential(
        [
            Input((28, 28, 1), name="image"),
            layers.Conv2D(20, 5, activation="relu", name="conv1"),
            gate(name="gate1"),
            layers.MaxPooling2D(),
            layers.SeparableConv2D(50, 5, activation="relu", name="conv2"),
            gate(name="gate2"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Flatten(),
            layers.Dense(100, activation="relu", name="dense"),
            layers.Dense(10, name="logits"),
        ]
    )
    randomise(model, drop=0.0)
    drop_units(find_gates(model)[0], [0, 1, 2, 3])
    drop_units(find_gates(model)[1], list(range(20)))
    return prune(model)[1]


def test_figures_by_hand() -> None:
    report = lenet()
    rows = {row.name: row for row in report.layers}
    assert list(rows) == ["image", "conv1", "conv2", "depthwise", "dense", "logits"]
    conv1, conv2, depthwise, dense = (rows[n] for n in list(rows)[1:5])
    assert (conv1.units_before, conv1.units_after) == (20, 16)
    assert (conv1.params_before, conv1.params_after) == (20 * 26, 16 * 26)
    assert (conv1.macs_before, conv1.macs_after) == (24 * 24 * 25 * 20, 24 * 24 * 25 * 16)
    assert (conv2.params_before, conv2.params_after) == (
        25 * 20 + 20 * 50 + 50,
        25 * 16 + 16 * 30 + 30,
    )
    assert (conv2.macs_before, conv2.macs_after) == (
        64 * (25 * 20 + 20 * 50),
        64 * (25 * 16 + 16 * 30),
    )
    assert (depthwise.macs_before, depthwise.macs_after) == (36 * 9 * 50, 36 * 9 * 30)
    assert (dense.macs_before, dense.macs_after) == (36 * 50 * 100, 36 * 30 * 100)
    assert [(g.name, g.units_before, g.units_after) for g in report.gates] == [
        ("gate1", 20, 16),
        ("gate2", 50, 30),
    ]


def test_totals_are_sums_and_the_dict_is_json() -> None:
    report = lenet()
    for total in ("units_before", "units_after", "params_before", "params_after"):
        assert getattr(report, total) == sum(getattr(row, total) for row in report.layers)
    data = json.loads(json.dumps(report.to_dict()))
    assert data["macs_after"] == report.macs_after
    assert data["layers"][1]["units_after"] == 16
    assert 0 < data["max_abs_error"] < 1e-4


def test_print_shows_layers_and_totals() -> None:
    report, out = lenet(), io.StringIO()
    report.print(Console(file=out, width=140))
    text = out.getvalue()
    for part in ("conv1", "20 → 16", "total", "fewer MACs", "max |Δ|"):
        assert part in text
