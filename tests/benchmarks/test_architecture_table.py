"""docs/architectures.md says what the file of results says, and every network is in it."""

from __future__ import annotations

import json
import pathlib

import pytest

from benchmarks.applications import JSON
from benchmarks.architectures.catalogue import LITERT, WITHOUT_TOP, application_names
from benchmarks.architectures.measure import shortcomings
from benchmarks.architectures.page import BEGIN, PAGE, filled, table

RESULTS = json.loads(JSON.read_text())
ROWS = RESULTS["networks"]


def test_page_shows_the_results() -> None:
    page = PAGE.read_text()
    assert BEGIN in page
    assert filled(page, RESULTS) == page, "run: python -m benchmarks.applications --table"


def test_every_application_was_measured() -> None:
    names = application_names()
    assert len(names) > 35
    assert {*names, *(name + WITHOUT_TOP for name in names)} <= set(ROWS)
    assert {"Subclassed ResNet", "KerasHub BERT", "KerasHub ViT"} <= set(ROWS)


@pytest.mark.parametrize("name", LITERT)
def test_those_that_must_export_did(name: str) -> None:
    assert ROWS[name]["litert"]["max_abs_error"] < 1e-4


def test_page_notices_a_changed_number() -> None:
    changed = json.loads(json.dumps(RESULTS))
    next(iter(changed["networks"].values()))["params_after"] *= 2
    assert filled(PAGE.read_text(), changed) != PAGE.read_text()


@pytest.mark.parametrize("name", ROWS)
def test_every_network_got_what_it_was_promised(name: str) -> None:
    assert shortcomings(ROWS[name]) == []


def test_a_row_that_failed_is_shown_as_failed() -> None:
    failed = {"networks": {"X": {"name": "X", "error": "no"}}}
    head = {key: RESULTS[key] for key in ("settings", "versions", "machine")}
    assert "| X |  |  |  |  |  |  | failed |" in table(head | failed)


def test_json_is_where_the_docs_say() -> None:
    assert pathlib.Path(__file__).parents[2] / "benchmarks" / "results" / JSON.name == JSON
