"""docs/rules.md says what the files of results say, and what is claimed there holds."""

from __future__ import annotations

import json

from benchmarks.rules_page import PAGE, RESULTS, REWEIGHTED, filled


def test_page_shows_the_results() -> None:
    page = PAGE.read_text("utf-8")
    assert filled(page) == page, "run: python -m benchmarks.rules_page"


def test_reweighted_input_change_beats_what_sees_no_data() -> None:
    results = json.loads((RESULTS / "rules_input_change.json").read_text())
    for rows in results["networks"].values():
        best = [r["score"] for r in rows if r["label"] == "input change, asymmetric" + REWEIGHTED]
        blind = {
            label: [r["score"] for r in rows if r["label"] == label]
            for label in {r["label"] for r in rows}
            if label.startswith(("L1", "L2", "random")) and not label.endswith(REWEIGHTED)
        }
        assert len(blind) == 6
        for scores in blind.values():
            assert all(a > b for a, b in zip(best, scores, strict=True))
