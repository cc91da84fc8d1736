"""docs/speed.md says what the files of results say."""

from __future__ import annotations

import json

import pytest

from benchmarks.rounding import NETWORKS
from benchmarks.speed_page import PAGE, RESULTS, filled


def test_page_shows_the_results() -> None:
    page = PAGE.read_text("utf-8")
    assert filled(page) == page, "run: python -m benchmarks.speed_page"


@pytest.mark.parametrize("name", NETWORKS)
def test_efficiency_is_the_speed_up_over_the_work_saved(name: str) -> None:
    rows = json.loads((RESULTS / "rounding.json").read_text())["rows"]
    rows = [row for row in rows if row["network"] == name]
    assert {row["target"] for row in rows} == {0.5, 0.25}
    for row in rows:
        assert row["fewer_macs"] * row["target"] >= 0.999
        assert row["efficiency"] == pytest.approx(row["faster"] / row["fewer_macs"], abs=2e-3)
        low, high = row["faster_quartiles"]
        assert low <= row["faster"] <= high


def test_quantised_files_are_smaller_and_as_accurate() -> None:
    rows = json.loads((RESULTS / "formats.json").read_text())["rows"]
    assert len(rows) == 7
    whole, small, *others = rows
    assert small["bytes"] < whole["bytes"] / 8
    for row in others:
        assert row["compressed"] < small["compressed"]
        assert row["accuracy"] > small["accuracy"] - 0.002
