"""The tables of docs/rules.md, from the files of results: `python -m benchmarks.rules_page`."""

from __future__ import annotations

import json
import pathlib

from benchmarks.markdown import put, table

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "rules.md"
RESULTS = ROOT / "benchmarks" / "results"
BY = "benchmarks/rules_page.py"
REWEIGHTED = ", reweighted"


def filled(page: str) -> str:
    """Returns the page with everything between its markers made from the results."""
    for study, tables in (("posteriors", _posteriors), ("input_change", _input_change)):
        results = json.loads((RESULTS / f"rules_{study}.json").read_text())
        page = put(page, study, tables(results), BY)
    return page


def _posteriors(results: dict) -> str:
    """Accuracy by the rule and by how many times fewer multiply-accumulates remain."""
    own = {row["label"]: row for row in results["own decisions"]}
    curves = _curves(results["budgets"])
    whole = curves.pop("all units")
    rows = []
    for label, points in curves.items():
        alone = own.get(label)
        told = f"{_percent(alone)} at {_times(alone)}" if alone else ""
        rows.append([label, told, *map(_percent, points)])
    fewer = [f"≥ {1 / fraction:.3g}×" for fraction in results["settings"]["fractions"]]
    accuracies = table(["rule", "by itself", *fewer], rows)
    return f"{accuracies}\n\nWith all units: {_percent(whole[0])} %."


def _input_change(results: dict) -> str:
    """For each network, accuracy without and with new weights."""
    fewer = [f"≥ {times}×" for times in results["settings"]["times_fewer"]]
    headings = ["rule", *fewer, *(f"{each}, reweighted" for each in fewer)]
    parts = []
    for name in results["networks"]:
        curves = _curves(results["networks"][name])
        whole = curves.pop("all units")
        rows = [
            [label, *map(_percent, points), *map(_percent, curves[label + REWEIGHTED])]
            for label, points in curves.items()
            if not label.endswith(REWEIGHTED)
        ]
        told = f"{name} (with all units {_percent(whole[0])} %):"
        parts.append(f"{told}\n\n{table(headings, rows)}")
    return "\n\n".join(parts)


def _curves(rows: list[dict]) -> dict[str, list[dict]]:
    curves: dict[str, list[dict]] = {}
    for row in rows:
        curves.setdefault(row["label"], []).append(row)
    return curves


def _percent(row: dict) -> str:
    return "–" if row["score"] is None else f"{100 * row['score']:.2f}"


def _times(row: dict) -> str:
    return f"{row['macs_before'] / row['macs']:.1f}×"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
