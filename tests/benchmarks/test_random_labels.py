"""What is claimed of networks that were trained on shuffled labels holds in the file of results."""

from __future__ import annotations

import json

import pytest

from benchmarks.random_labels import JSON, METHODS, PAGE, PICTURE, SETTINGS, filled

RESULTS = json.loads(JSON.read_text())
SEEDS = RESULTS["seeds"]
GATES = ("gate_input", "gate_dense1", "gate_dense2")


def test_file_is_that_of_the_benchmark() -> None:
    assert RESULTS["settings"] == SETTINGS
    assert sorted(SEEDS) == ["0", "1", "2"]
    assert PICTURE.exists()


def test_page_shows_the_results() -> None:
    page = PAGE.read_text("utf-8")
    assert filled(page, SEEDS) == page, "run: python -m benchmarks.random_labels"


@pytest.mark.parametrize("seed", SEEDS)
def test_every_network_was_trained_equally_long(seed: str) -> None:
    assert SEEDS[seed].keys() == METHODS.keys()
    for row in SEEDS[seed].values():
        assert {len(curve) for curve in row["curves"].values()} == {SETTINGS["epochs"]}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("method", ["plain", "dropout"])
def test_without_gates_labels_are_memorised(seed: str, method: str) -> None:
    row = SEEDS[seed][method]
    assert row["train_accuracy"] > 0.9
    assert row["test_accuracy"] < 0.15
    assert row["classes_predicted"] == 10


@pytest.mark.parametrize("seed", SEEDS)
def test_gates_predict_a_constant(seed: str) -> None:
    row = SEEDS[seed]["gated"]
    assert row["train_accuracy"] <= 0.15
    assert row["classes_predicted"] == 1
    assert row["largest_std_of_logits"] < 1e-4
    assert [row["curves"][f"kept_{gate}"][-1] for gate in GATES] == [0, 0, 0]


@pytest.mark.parametrize("seed", SEEDS)
def test_prune_says_that_nothing_is_left(seed: str) -> None:
    words = SEEDS[seed]["gated"]["pruning"]["refused"]
    assert "would not depend on the input any more, so there is nothing left to prune to" in words
    empty = words.partition("Gates that keep no unit: ")[2].partition(".")[0]
    assert empty == ", ".join(f"'{gate}'" for gate in GATES)


@pytest.mark.parametrize("seed", SEEDS)
def test_true_labels_are_learned_with_fewer_units(seed: str) -> None:
    row = SEEDS[seed]["gated_true_labels"]
    assert row["train_accuracy"] > 0.95
    assert row["test_accuracy"] > 0.9
    assert row["pruning"]["macs_after"] < 0.5 * row["pruning"]["macs_before"]


@pytest.mark.parametrize("seed", SEEDS)
def test_in_large_batches_memorising_comes_first(seed: str) -> None:
    rows = SEEDS[seed]
    assert rows["gated_large_batches"]["train_accuracy"] > 0.9
    # By the bound itself, knowing the labels is the better end.
    losses = {name: rows[name]["curves"]["loss"][-1] for name in rows}
    assert losses["gated_large_batches"] < losses["gated"]
