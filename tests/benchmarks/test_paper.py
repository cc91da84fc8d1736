"""What is claimed of the paper's table holds in its files of results."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics

import pytest

from benchmarks.paper import config, networks, page
from benchmarks.paper.__main__ import RESULTS
from benchmarks.paper.plots import HISTORY, IMAGES, PLOTTED

ROWS = json.loads((RESULTS / "paper.json").read_text())["rows"]
CASES = [(name, seed) for name, row in ROWS.items() for seed in row["seeds"]]
# Places at which each convolution is applied.
PLACES = {
    "lenet5_caffe": {"conv1": 24 * 24, "conv2": 8 * 8},
    "cifar_vgg": {"conv1_1": 1024, "conv2_1": 256, "conv2_2": 256, "conv3_1": 64, "conv3_2": 64},
}


def macs_by_hand(network: str, kernels: dict[str, list[int]]) -> int:
    """Multiply-accumulates from nothing but the shapes of kernels."""
    places = PLACES.get(network, {})
    return sum(math.prod(shape) * places.get(name, 1) for name, shape in kernels.items())


@pytest.mark.parametrize("name", config.names())
def test_every_row_that_needs_no_gpu_was_measured_as_its_file_says(name: str) -> None:
    row = config.load(name)
    if row.needs_gpu:
        assert name not in ROWS
    else:
        assert ROWS[name]["settings"] == row.settings()


@pytest.mark.parametrize("name", ROWS)
def test_three_seeds(name: str) -> None:
    assert sorted(ROWS[name]["seeds"]) == ["0", "1", "2"]


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_macs_are_those_of_the_formula(name: str, seed: str) -> None:
    result = ROWS[name]["seeds"][seed]
    network = config.load(name).network
    assert result["macs"] == macs_by_hand(network, result["kernels"])
    dense = {
        layer.name: layer.kernel.shape
        for layer in networks.NETWORKS[network]().layers
        if hasattr(layer, "kernel")
    }
    assert result["dense_macs"] == macs_by_hand(network, dense)


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_budgets_are_kept(name: str, seed: str) -> None:
    how, result = config.load(name).prune, ROWS[name]["seeds"][seed]
    if how is not None and how.budget is not None:
        assert 0.7 * how.budget < result["macs"] / result["dense_macs"] <= how.budget


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_a_rule_of_gates_prunes_to_the_same_function(name: str, seed: str) -> None:
    row, result = config.load(name), ROWS[name]["seeds"][seed]
    if row.gated and row.prune.rule == "snr" and not (row.prune.budget or row.prune.reweight):
        assert result["moved"] < 1e-5
        assert result["pruned_error"] == result["gated_error"]


@pytest.mark.parametrize(
    ("name", "published_error", "published_fewer"),
    [
        ("lenet_500_300", 1.55, 11.23),
        ("lenet_500_300_tiny", 1.6, 545_000 / 9_560),
        ("lenet5_caffe", 0.86, 2_293_000 / 153_376),
        ("lenet5_caffe_tiny", 0.86, 2_293_000 / 153_376),
    ],
)
def test_the_paper_is_beaten(name: str, published_error: float, published_fewer: float) -> None:
    seeds = ROWS[name]["seeds"].values()
    assert statistics.mean(seed["error"] for seed in seeds) <= published_error
    assert min(seed["dense_macs"] / seed["macs"] for seed in seeds) >= published_fewer


def test_page_shows_the_results() -> None:
    text = page.PAGE.read_text("utf-8")
    assert page.filled(text) == text, "run: python -m benchmarks.paper.page"


def test_readme_shows_the_results() -> None:
    text = page.README.read_text("utf-8")
    assert page.summarised(text) == text, "run: python -m benchmarks.paper.page"


def test_pictures_are_there_with_what_they_show() -> None:
    histories = json.loads(HISTORY.read_text())["networks"]
    assert list(histories) == list(PLOTTED)
    for name, history in histories.items():
        assert len(history) == config.load(name).gated.epochs
    for picture in ("paper_curves", "paper_snr", "paper_pareto"):
        assert (IMAGES / f"{picture}.png").exists()


def test_rows_share_what_they_have_in_common() -> None:
    sbp, bmrs = config.load("lenet5_caffe_sbp"), config.load("lenet5_caffe_bmrs")
    assert sbp.key("dense") == bmrs.key("dense")
    assert sbp.key("gated") == bmrs.key("gated")
    assert sbp.key("prune") != bmrs.key("prune")
    assert sbp.key("gated") != config.load("lenet_500_300_sbp").key("gated")


def test_a_teacher_that_changes_changes_what_is_distilled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = config.load("lenet5_caffe")
    before = row.key("tune")
    teacher = config.load(row.tune.teacher)
    other = dataclasses.replace(teacher, dense=config.Dense(epochs=1))
    monkeypatch.setattr(config, "load", lambda name: other)
    assert row.key("tune") != before


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_gated_networks_have_the_weights_of_the_dense_one(name: str) -> None:
    dense = networks.NETWORKS[name]()
    gated = networks.gated(name, dense, 1.0)
    for layer in dense.layers:
        if hasattr(layer, "kernel"):
            assert (gated.get_layer(layer.name).kernel.numpy() == layer.kernel.numpy()).all()
    with pytest.raises(SystemExit, match="gates, received 1 KL weights"):
        networks.gated(name, dense, [1.0])
