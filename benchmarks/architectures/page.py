"""The table of docs/architectures.md, from the file of results."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "architectures.md"
BEGIN = "<!-- table: python -m benchmarks.applications --table -->\n"
END = "<!-- end of table -->\n"

ERROR = "max\\|Δ\\| / max\\|y\\|"
HEADINGS = ("network", "input", "units", "params", "MACs", "prune", ERROR, "opaque calls")


def write_page(results: pathlib.Path) -> pathlib.Path:
    """Puts the results between the markers of the page; returns its path."""
    PAGE.write_text(filled(PAGE.read_text(), json.loads(results.read_text())))
    return PAGE


def filled(page: str, results: dict) -> str:
    """Returns the page with everything between its markers made from the results."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "\n" + table(results) + "\n" + END + after


def table(results: dict) -> str:
    """Returns the results as a Markdown table, and below it the reasons of opaque calls."""
    rows = list(results["networks"].values())
    lines = [_line(HEADINGS), _line(["---"] + ["---:"] * (len(HEADINGS) - 2) + ["---"])]
    lines += [_line(_cells(row)) for row in rows]
    settings, versions = results["settings"], results["versions"]
    told = ", ".join(f"{name} {number}" for name, number in versions.items())
    lines += ["", f"Seed {settings['seed']}; {told}; {results['machine']['cores']} CPU cores."]
    return "\n".join([*lines, *_reasons(rows), *_exported(rows)]) + "\n"


def _cells(row: dict) -> list[str]:
    if "error" in row:
        return [row["name"], *[""] * (len(HEADINGS) - 2), "failed"]
    sizes = " + ".join("×".join("?" if n is None else str(n) for n in s) for s in row["input"])
    return [
        row["name"],
        sizes,
        _change(row["units"], row["units_kept"]),
        _change(row["params_before"], row["params_after"]),
        _change(row["macs_before"], row["macs_after"]),
        f"{row['prune_seconds']['processor']:.1f} s",
        f"{row['max_abs_error']:.0e}",
        "; ".join(f"{each['calls']} {each['kind']}" for each in row["opaque"]) or "–",
    ]


def _reasons(rows: Iterable[dict]) -> list[str]:
    """Why calls are opaque, and in how many networks."""
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        for each in row.get("opaque", ()):
            why = each["kind"], each["reason"]
            counts[why] = counts.get(why, 0) + 1
    lines = [f"- {kind}, in {n} of the networks: {reason}." for (kind, reason), n in counts.items()]
    return ["", "Opaque calls:", "", *lines] if lines else []


def _exported(rows: Iterable[dict]) -> list[str]:
    lines = []
    for row in rows:
        if "litert" in row:
            file = row["litert"]
            lines.append(
                f"- {row['name']}: {file['bytes'] / 1e6:.1f} MB, {file['operations']} operations, "
                f"max|Δ| {file['max_abs_error']:.0e} of max|y| against the small Keras model."
            )
    return ["", "As LiteRT files:", "", *lines] if lines else []


def _change(before: int, after: int) -> str:
    return f"{_short(before)} → {_short(after)}"


def _short(number: int) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            value = number / size
            return f"{value:.0f} {letter}" if value >= 100 else f"{value:.1f} {letter}"
    return str(number)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
