"""The tables of docs/paper.md and of the README: `python -m benchmarks.paper.page`."""

from __future__ import annotations

import json
import pathlib
import statistics
from collections.abc import Iterable

from benchmarks.markdown import put, table
from benchmarks.paper import config
from benchmarks.paper.__main__ import RESULTS
from benchmarks.paper.published import PUBLISHED, Published
from benchmarks.paper.store import SMALL, STORED

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "paper.md"
README = ROOT / "README.md"
BY = "benchmarks/paper/page.py"
NETWORKS = {"lenet_500_300": "LeNet-500-300", "lenet5_caffe": "LeNet-5-Caffe"}
PAPER_WIDTHS = {"lenet_500_300": "245-160-55", "lenet5_caffe": "3-18-284-283"}
STEPS = {
    "lenet_500_300": (
        *("lenet_500_300_sbp", "lenet_500_300_bmrs", "lenet_500_300_reweighted"),
        *("lenet_500_300_labels", "lenet_500_300_distilled"),
        *("lenet_500_300", "lenet_500_300_tiny"),
    ),
    "lenet5_caffe": (
        *("lenet5_caffe_sbp", "lenet5_caffe_bmrs", "lenet5_caffe_reweighted"),
        *("lenet5_caffe_labels", "lenet5_caffe_distilled", "lenet5_caffe_shifted"),
        *("lenet5_caffe", "lenet5_caffe_l1_distilled"),
        *("lenet5_caffe_tiny", "lenet5_caffe_l1_tiny"),
    ),
}
OTHERS = ("l1", "batch_norm", "taylor", "torch_l1", "torch_taylor")
SIDE_BY_SIDE = {
    "lenet5_caffe": ("lenet5_caffe_labels", *(f"lenet5_caffe_{other}" for other in OTHERS)),
    "cifar_vgg": ("cifar_vgg", *(f"cifar_vgg_{other}" for other in OTHERS)),
}


def filled(page: str) -> str:
    """Returns the page with everything between its markers made from the results."""
    rows = json.loads((RESULTS / "paper.json").read_text())["rows"]
    speed = json.loads((RESULTS / "paper_speed.json").read_text())["networks"]
    for network, title in NETWORKS.items():
        page = put(page, network, _comparison(network, title, rows, speed[network]), BY)
        page = put(page, f"{network} steps", _steps(STEPS[network], rows), BY)
    for network, names in SIDE_BY_SIDE.items():
        page = put(page, f"{network} side by side", _side_by_side(names, rows), BY)
    trial = json.loads((RESULTS / "paper_trial.json").read_text())
    return put(page, "vgg_like trial", _trial(trial), BY)


def summarised(readme: str) -> str:
    """Returns the README with its short table made from the results."""
    rows = json.loads((RESULTS / "paper.json").read_text())["rows"]
    speed = json.loads((RESULTS / "paper_speed.json").read_text())["networks"]
    lines = []
    for network, title in NETWORKS.items():
        (sbp,) = (p for p in PUBLISHED if (p.network, p.method) == (title, "SBP"))
        stored = STORED[network]
        seeds = rows[stored]["seeds"].values()
        fewer = statistics.mean(seed["dense_macs"] / seed["macs"] for seed in seeds)
        error = statistics.mean(seed["error"] for seed in seeds)
        faster = speed[network]["faster"][stored]
        lines.append([title, f"{sbp.error:.2f}", f"{sbp.fewer_macs:.1f}×", f"{sbp.faster:.1f}×"])
        lines[-1] += [f"**{error:.2f}**", f"**{fewer:.1f}×**", f"**{faster:.1f}×**"]
    measures = ["error, %", "fewer MACs", "faster"]
    headings = [f"{who}: {what}" for who in ("paper", "here") for what in measures]
    return put(readme, "paper", table(["network", *headings], lines), BY)


def kept(kernels: dict[str, list[int]]) -> str:
    """Returns what the paper's tables give: units that the layers read or make."""
    if "dense1" in kernels:
        return "-".join(str(kernels[name][0]) for name in ("dense1", "dense2", "logits"))
    convolutions = [shape[-1] for name, shape in kernels.items() if name.startswith("conv")]
    return "-".join(map(str, [*convolutions, *kernels["dense"]]))


def _comparison(network: str, title: str, rows: dict, speed: dict) -> str:
    lines = [_published(each) for each in PUBLISHED if each.network == title]
    dense = [seed["dense_error"] for seed in rows[network]["seeds"].values()]
    lines.append(["here: before pruning", _spread(dense), "", "1×", "1×"])
    faster = speed["faster"]
    for name in SMALL[network]:
        seeds = list(rows[name]["seeds"].values())
        errors = _spread(seed["error"] for seed in seeds)
        widths = ", ".join(kept(seed["kernels"]) for seed in seeds)
        lines.append([f"**here: `{name}`**", errors, widths, _fewer(seeds), f"{faster[name]:.1f}×"])
    paper = f"the paper's {PAPER_WIDTHS[network]}, timed here"
    lines.append([paper, "", "", "", f"{faster['paper']:.1f}×"])
    return table(["method", "error, %", "kept units", "fewer MACs", "faster"], lines)


def _published(row: Published) -> list[str]:
    fewer = f"{row.fewer_macs:.2f}×" if row.fewer_macs else "–"
    faster = f"{row.faster:.2f}×" if row.faster else ""
    return [row.method, f"{row.error:.2f}", row.kept, fewer, faster]


def _steps(names: Iterable[str], rows: dict) -> str:
    """What each step does to the error, and what it leaves."""
    lines = []
    for name in names:
        if name in rows:
            seeds = list(rows[name]["seeds"].values())
            errors = _spread(seed["error"] for seed in seeds)
            lines.append([config.load(name).title, errors, _fewer(seeds)])
    return table(["steps", "error, %", "fewer MACs"], lines)


def _side_by_side(names: Iterable[str], rows: dict) -> str:
    """How far each way of pruning moves the network, and where training brings it."""
    lines = []
    for name in names:
        if name in rows:
            seeds = list(rows[name]["seeds"].values())
            moved = ", ".join(f"{seed['moved']:.2g}" for seed in seeds)
            before = ", ".join(f"{seed['pruned_error']:.1f}" for seed in seeds)
            after = _spread(seed["error"] for seed in seeds)
            widths = ", ".join(kept(seed["kernels"]) for seed in seeds)
            title = config.load(name).title
            lines.append([title, moved, before, after, _fewer(seeds), widths])
    headings = ["pruned by", "moved", "error at once, %", "error after training, %", "fewer MACs"]
    return table([*headings, "kept units"], lines)


def _trial(trial: dict) -> str:
    """The loss before and after, without gates and with them."""
    lines = []
    for stage, title in (("dense", "without gates"), ("gated", "with gates, KL included")):
        epochs = trial[stage]
        losses = [f"{epoch['loss']:.2f}" for epoch in (epochs[0], epochs[-1])]
        accuracies = [f"{epoch['accuracy']:.1%}" for epoch in (epochs[0], epochs[-1])]
        steps = str(len(epochs) * trial["steps_per_epoch"])
        lines.append([title, steps, " → ".join(losses), " → ".join(accuracies)])
    headings = [f"`{trial['row']}`", "steps", "mean loss, first → last epoch", "training accuracy"]
    return table(headings, lines)


def _spread(values: Iterable[float]) -> str:
    """Mean, standard deviation and all values; the value alone where there is one."""
    values = list(values)
    if len(values) == 1:
        return f"{values[0]:.2f} (one seed)"
    each = ", ".join(f"{value:.2f}" for value in values)
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f} ({each})"


def _fewer(seeds: list[dict]) -> str:
    values = [seed["dense_macs"] / seed["macs"] for seed in seeds]
    text = f"{statistics.mean(values):.1f}×"
    return text if len(set(values)) == 1 else text + f" ({', '.join(f'{v:.1f}' for v in values)})"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
    README.write_text(summarised(README.read_text("utf-8")), "utf-8")
