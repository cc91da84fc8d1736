"""The tables and pictures of docs/paper.md: `python -m benchmarks.paper.page`."""

from __future__ import annotations

import json
import pathlib
import statistics

from benchmarks.markdown import put, table
from benchmarks.paper.__main__ import RESULTS
from benchmarks.paper.published import PUBLISHED, Published

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "paper.md"
BY = "benchmarks/paper/page.py"
NETWORKS = {"lenet_500_300": "LeNet-500-300", "lenet5_caffe": "LeNet-5-Caffe"}
STEPS = ("sbp", "bmrs", "reweighted", "labels", "distilled")


def filled(page: str) -> str:
    """Returns the page with everything between its markers made from the results."""
    rows = json.loads((RESULTS / "paper.json").read_text())["rows"]
    speed = json.loads((RESULTS / "paper_speed.json").read_text())["networks"]
    for network, title in NETWORKS.items():
        page = put(page, network, _comparison(network, title, rows, speed), BY)
        page = put(page, f"{network} steps", _steps(network, rows), BY)
    return page


def kept(network: str, kernels: dict[str, list[int]]) -> str:
    """Returns what the paper's tables give: units that the layers read or make."""
    if network == "lenet_500_300":
        return "-".join(str(kernels[name][0]) for name in ("dense1", "dense2", "logits"))
    conv1, conv2, dense = (kernels[name] for name in ("conv1", "conv2", "dense"))
    return f"{conv1[-1]}-{conv2[-1]}-{dense[0]}-{dense[1]}"


def _comparison(network: str, title: str, rows: dict, speed: dict) -> str:
    lines = [_published(each) for each in PUBLISHED if each.network == title]
    seeds = rows[network]["seeds"].values()
    before = [seed["dense_error"] for seed in seeds]
    lines.append(["here: before pruning", _spread(before), "", "1×", ""])
    faster = speed[network]["faster"]
    told = "**here: after**", _spread([s["error"] for s in seeds])
    lines.append([*told, _widths(network, seeds), _fewer(seeds), f"{faster['small']:.1f}×"])
    paper = f"the paper's {PUBLISHED_WIDTHS[network]}, timed here"
    lines.append([paper, "", "", "", f"{faster['paper']:.1f}×"])
    headings = ["method", "error, %", "kept units", "fewer MACs", "faster"]
    return table(headings, lines)


def _published(row: Published) -> list[str]:
    fewer = f"{row.fewer_macs:.2f}×" if row.fewer_macs else "–"
    faster = f"{row.faster:.2f}×" if row.faster else ""
    return [row.method, f"{row.error:.2f}", row.kept, fewer, faster]


PUBLISHED_WIDTHS = {"lenet_500_300": "245-160-55", "lenet5_caffe": "3-18-284-283"}


def _steps(network: str, rows: dict) -> str:
    """What each step does to the error, and what it leaves."""
    lines = []
    for name in [*(f"{network}_{step}" for step in STEPS), network]:
        if name in rows:
            seeds = rows[name]["seeds"].values()
            errors = _spread([seed["error"] for seed in seeds])
            title = rows[name]["settings"]["title"]
            lines.append([title, str(len(seeds)), errors, _fewer(seeds)])
    return table(["steps", "seeds", "error, %", "fewer MACs"], lines)


def _spread(values: list[float]) -> str:
    each = ", ".join(f"{value:.2f}" for value in values)
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {spread:.2f} ({each})"


def _fewer(seeds: list[dict]) -> str:
    values = [seed["dense_macs"] / seed["macs"] for seed in seeds]
    return f"{statistics.mean(values):.1f}× ({', '.join(f'{value:.1f}' for value in values)})"


def _widths(network: str, seeds: list[dict]) -> str:
    return ", ".join(kept(network, seed["kernels"]) for seed in seeds)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
