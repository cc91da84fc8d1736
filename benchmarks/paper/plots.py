"""Pictures of docs/paper.md: `python -m benchmarks.paper.plots`.

Reads benchmarks/results/paper.json, and the histories of the gated training of seed 0 from the
folder of the runs, which it keeps in benchmarks/results/paper_history.json.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import sys
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.paper import config, stages
from benchmarks.paper.__main__ import RESULTS
from benchmarks.paper.page import NETWORKS
from benchmarks.paper.published import PUBLISHED
from benchmarks.paper.training import BINS

IMAGES = pathlib.Path(__file__).parents[2] / "docs" / "images"
HISTORY = RESULTS / "paper_history.json"
PLOTTED = NETWORKS | {"cifar_vgg": "narrow VGG"}


def curves(histories: dict[str, list[dict]]) -> None:
    """Training accuracy, and the part of each gate's units that stay, by epoch."""
    figure, axes = plt.subplots(1, 3, figsize=(14, 3.8), layout="constrained")
    for ax, (network, history) in zip(axes, histories.items(), strict=True):
        epochs = range(1, len(history) + 1)
        for gate in history[0]["gates"]:
            units = sum(history[0]["gates"][gate]["log10_snr"])
            kept = [row["gates"][gate]["kept"] / units for row in history]
            ax.plot(epochs, kept, label=f"{gate}, {units} units")
        accuracy = [row["accuracy"] for row in history]
        ax.plot(epochs, accuracy, "k--", label="training accuracy")
        ax.set(title=PLOTTED[network], xlabel="epoch with gates", ylabel="part that stays")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(fontsize=7)
    _save(figure, "paper_curves")


def histograms(histories: dict[str, list[dict]]) -> None:
    """Each gate's signal-to-noise ratios, epoch by epoch."""
    gates = [(network, gate) for network, h in histories.items() for gate in h[0]["gates"]]
    columns = 5
    lines = -(-len(gates) // columns)
    size = (2.6 * columns, 2.4 * lines)
    figure, axes = plt.subplots(lines, columns, figsize=size, layout="constrained", sharex=True)
    for ax, (network, gate) in zip(axes.flat, gates, strict=False):
        counts = np.array([row["gates"][gate]["log10_snr"] for row in histories[network]], float)
        extent = (BINS[0], BINS[-1], len(counts), 0)
        ax.imshow(np.log1p(counts), aspect="auto", extent=extent, cmap="magma")
        ax.axvline(0.0, color="white", linewidth=0.8, linestyle="--")
        ax.set_title(f"{PLOTTED[network]}, {gate}", fontsize=8)
        ax.set_xlim(-1.0, 3.0)
    for ax in axes.flat[len(gates) :]:
        ax.set_axis_off()
    figure.supxlabel("log10 of the signal-to-noise ratio; units left of the dashed line go")
    figure.supylabel("epoch")
    _save(figure, "paper_snr")


def pareto(rows: dict) -> None:
    """Error against how many times fewer multiply-accumulates remain, beside what others report."""
    figure, axes = plt.subplots(1, 3, figsize=(14, 6), layout="constrained")
    for ax, (network, title) in zip(axes, PLOTTED.items(), strict=True):
        for each in PUBLISHED:
            if each.network == title and each.fewer_macs:
                ax.plot(each.fewer_macs, each.error, "o", color="lightgrey")
                ax.annotate(each.method, (each.fewer_macs, each.error), fontsize=7)
        ax.set_prop_cycle(color=plt.colormaps["tab20"].colors)
        for name in sorted(name for name in rows if config.load(name).network == network):
            seeds = rows[name]["seeds"].values()
            fewer = [seed["dense_macs"] / seed["macs"] for seed in seeds]
            errors = [seed["error"] for seed in seeds]
            (points,) = ax.plot(fewer, errors, ".", alpha=0.5)
            center = statistics.mean(fewer), statistics.mean(errors)
            label = config.load(name).title
            ax.plot(*center, "*", color=points.get_color(), markersize=10, label=label)
        ax.set(title=title, xlabel="times fewer multiply-accumulates", ylabel="test error, %")
        ax.set_xscale("log")
        ax.margins(x=0.15)
        ax.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    _save(figure, "paper_pareto")


def _save(figure: plt.Figure, name: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    figure.savefig(IMAGES / f"{name}.png", dpi=110)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/paper"))
    options = parser.parse_args(arguments)
    found = {}
    for network in PLOTTED:
        path = stages.path(config.load(network), options.folder / "test" / "seed-0", "gated")
        if path.exists():
            found[network] = json.loads(path.with_suffix(".history.json").read_text())
    if found:
        # A line per network: there are thousands of counts.
        lines = (f"{json.dumps(name)}: {json.dumps(found[name])}" for name in found)
        HISTORY.write_text('{"seed": 0, "networks": {\n' + ",\n".join(lines) + "\n}}\n")
    histories = json.loads(HISTORY.read_text())["networks"]
    curves(histories)
    histograms(histories)
    pareto(json.loads((RESULTS / "paper.json").read_text())["rows"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
