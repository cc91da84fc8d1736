"""The tables of docs/speed.md, from the files of results: `python -m benchmarks.speed_page`."""

from __future__ import annotations

import json
import pathlib

from benchmarks.markdown import put, table

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "speed.md"
RESULTS = ROOT / "benchmarks" / "results"
BY = "benchmarks/speed_page.py"


def filled(page: str) -> str:
    """Returns the page with everything between its markers made from the results."""
    for name, make in (
        ("rounding", _rounding),
        ("layer_times", _layer_times),
        ("formats", _formats),
    ):
        page = put(page, name, make(json.loads((RESULTS / f"{name}.json").read_text())), BY)
    return page


def _rounding(results: dict) -> str:
    """One row per network and target, one column per multiple."""
    rows = results["rows"]
    multiples = sorted({row["round_to"] for row in rows})
    lines = []
    for network, target in dict.fromkeys((row["network"], row["target"]) for row in rows):
        found = {r["round_to"]: r for r in rows if (r["network"], r["target"]) == (network, target)}
        cells = [_speed(found[each]) if each in found else "–" for each in multiples]
        lines.append([f"{network}, {1 / target:g}×", *cells])
    headings = [f"rounded to {each}" if each > 1 else "as they come" for each in multiples]
    return table(["network, MACs wanted", *headings], lines)


def _speed(row: dict) -> str:
    return f"{row['faster']:.2f}× at {row['fewer_macs']:.2f}×: **{row['efficiency']:.2f}**"


def _layer_times(results: dict) -> str:
    """For each network, what each kind of layer takes before and after."""
    parts = []
    for name, result in results["networks"].items():
        rows = []
        for label, entry in result["kinds"].items():
            (many, few), (slow, fast) = entry["macs"], entry["us"]
            work = f"{many / 1e6:.1f} → {few / 1e6:.1f}: {many / few:.2f}×" if few else "–"
            rows.append([label, work, _ratio(slow, fast)])
        slow, fast = (sum(entry["us"][i] for entry in result["kinds"].values()) for i in (0, 1))
        rows.append(["these layers, each alone", "", _ratio(slow, fast)])
        rows.append(["the network", "", _ratio(*result["whole_us"])])
        parts.append(f"{name}:\n\n{table(['layers', 'million MACs', 'µs'], rows)}")
    return "\n\n".join(parts)


def _ratio(slow: float, fast: float) -> str:
    return f"{slow:,.0f} → {fast:,.0f}: {slow / fast:.2f}×"


def _formats(results: dict) -> str:
    headings = ["LeNet-5-Caffe", "test accuracy", "bytes", "gzip", "smaller", "faster"]
    rows = [
        [
            row["model"],
            f"{row['accuracy']:.2%}",
            f"{row['bytes']:,}",
            f"{row['compressed']:,}",
            f"{row['smaller']:.1f}×",
            f"{row['faster']:.1f}×",
        ]
        for row in results["rows"]
    ]
    return table(headings, rows)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
