"""The tables of docs/rules.md, from the files of results: `python -m benchmarks.rules_page`."""

from __future__ import annotations

import json
import pathlib

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "rules.md"
RESULTS = ROOT / "benchmarks" / "results"
REWEIGHTED = ", reweighted"


def filled(page: str) -> str:
    """Returns the page with everything between its markers made from the results."""
    for study, tables in (("posteriors", _posteriors), ("input_change", _input_change)):
        begin, end = f"<!-- {study}: by benchmarks/rules_page.py -->", f"<!-- end of {study} -->"
        results = json.loads((RESULTS / f"rules_{study}.json").read_text())
        before, rest = page.split(begin)
        _, after = rest.split(end)
        page = f"{before}{begin}\n\n{tables(results)}\n{end}{after}"
    return page


def _posteriors(results: dict) -> str:
    """Accuracy by the rule and by how many times fewer multiply-accumulates remain."""
    own = {row["label"]: row for row in results["own decisions"]}
    curves = _curves(results["budgets"])
    fewer = [f"≥ {1 / fraction:.3g}×" for fraction in results["settings"]["fractions"]]
    lines = [_line(["rule", "by itself", *fewer])]
    lines.append(_line(["---"] + ["---:"] * (1 + len(fewer))))
    whole = curves.pop("all units")
    for label, rows in curves.items():
        alone = own.get(label)
        told = f"{_percent(alone)} at {_times(alone)}" if alone else ""
        lines.append(_line([label, told, *map(_percent, rows)]))
    lines += ["", f"With all units: {_percent(whole[0])} %."]
    return "\n".join(lines) + "\n"


def _input_change(results: dict) -> str:
    """For each network, accuracy without and with new weights."""
    parts = []
    for name in results["networks"]:
        curves = _curves(results["networks"][name])
        whole = curves.pop("all units")
        fewer = [f"≥ {times}×" for times in results["settings"]["times_fewer"]]
        lines = [f"{name} (with all units {_percent(whole[0])} %):", ""]
        lines.append(_line(["rule", *fewer, *(f"{each}, reweighted" for each in fewer)]))
        lines.append(_line(["---"] + ["---:"] * (2 * len(fewer))))
        for label, rows in curves.items():
            if not label.endswith(REWEIGHTED):
                again = curves[label + REWEIGHTED]
                lines.append(_line([label, *map(_percent, rows), *map(_percent, again)]))
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _curves(rows: list[dict]) -> dict[str, list[dict]]:
    curves: dict[str, list[dict]] = {}
    for row in rows:
        curves.setdefault(row["label"], []).append(row)
    return curves


def _percent(row: dict) -> str:
    return "–" if row["score"] is None else f"{100 * row['score']:.2f}"


def _times(row: dict) -> str:
    return f"{row['macs_before'] / row['macs']:.1f}×"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
