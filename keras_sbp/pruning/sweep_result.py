"""What a sweep found: data first, rendering apart."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult

from keras_sbp.printing import (
    Printable,
    change,
    exact,
    named,
    notes,
    short,
    table,
    width_of,
)


@dataclass(frozen=True)
class SweepRow:
    """One rule.

    Attributes:
        label: what the caller named it.
        rule: the rule, as text.
        metric: name of the score.
        score: of the pruned model; None where pruning failed.
        macs, params: multiply-accumulates per example and weights that remain.
        macs_before, params_before: the same before pruning.
        seconds: what pruning took, verification included.
        error: why pruning failed; "" where it did not.
    """

    label: str
    rule: str
    metric: str = ""
    score: float | None = None
    macs: int = 0
    params: int = 0
    macs_before: int = 0
    params_before: int = 0
    seconds: float = 0.0
    error: str = ""

    def __repr__(self) -> str:
        if self.score is None:
            return f"{type(self).__name__}({self.label!r}, failed: {self.error})"
        return (
            f"{type(self).__name__}({self.label!r}, {self.metric} {self.score:.4g}, "
            f"MACs {change(self.macs_before, self.macs)}, "
            f"params {change(self.params_before, self.params)})"
        )


@dataclass(frozen=True)
class SweepResult(Printable):
    """The outcome of `sweep`.

    Attributes:
        rows: one per rule, in order; the first is that of the network with all units.
    """

    rows: tuple[SweepRow, ...]

    def pareto(self) -> list[SweepRow]:
        """Returns the rows that no other beats: none is as good with fewer multiply-accumulates.

        Scores count as better when they are higher, losses and errors when they are lower.
        """
        done = [row for row in self.rows if row.score is not None]
        return [row for row in done if not any(_beats(other, row) for other in done)]

    def to_dict(self) -> dict[str, Any]:
        """Returns all figures as plain lists, dicts and numbers, ready for JSON."""
        return {"rows": [asdict(row) for row in self.rows]}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        headings = ("rule", self.rows[0].metric, "MACs left", "params left", "fewer MACs")
        for show in (exact, short):
            lines = [_cells(row, show) for row in self.rows]
            if width_of(headings, lines) <= options.max_width:
                break
        best = {id(row) for row in self.pareto()}
        styles = ["bold" if id(row) in best else "" for row in self.rows]
        yield table(headings, lines, options.max_width, styles=styles)
        failed: dict[str, list[str]] = {}
        for row in self.rows:
            if row.score is None:
                failed.setdefault(row.error, []).append(row.label)
        yield notes(f"{named(dict.fromkeys(each))}: {error}" for error, each in failed.items())

    def __repr__(self) -> str:
        done = [row for row in self.rows if row.score is not None]
        scores = sorted(row.score for row in done)
        said = [f"{len(self.rows)} rows"]
        if done:
            said.append(f"{done[0].metric} {scores[0]:.4g}–{scores[-1]:.4g}")
        if len(done) < len(self.rows):
            said.append(f"{len(self.rows) - len(done)} failed")
        return f"{type(self).__name__}({', '.join(said)})"

    def plot(self, path: str | os.PathLike[str] | None = None, title: str = "") -> Any:
        """Draws the scores over the remaining multiply-accumulates, one curve per label.

        Args:
            path: where to write the picture; None writes none.
            title: above the picture.

        Returns:
            The `matplotlib.figure.Figure`.

        Raises:
            ImportError: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure  # noqa: PLC0415 (an extra)
        except ImportError as error:
            raise ImportError(
                "plot() draws with matplotlib, which is not installed. Install it: "
                "pip install 'keras-sbp[plot]'"
            ) from error
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.add_subplot()
        whole, *others = [row for row in self.rows if row.score is not None]
        axes.axhline(whole.score, color="0.7", linewidth=1, label=whole.label)
        for number, (label, rows) in enumerate(_curves(others).items()):
            rows = sorted(rows, key=lambda row: row.macs)
            shares = [row.macs / row.macs_before for row in rows]
            marker = "os^Dv<>pPX*"[number % 11]
            axes.plot(shares, [r.score for r in rows], marker=marker, markersize=5, label=label)
        axes.set_xscale("log")
        axes.set_xlabel("multiply-accumulates that remain (fraction)")
        axes.set_ylabel(whole.metric)
        axes.set_title(title)
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3, which="both")
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure


def _curves(rows: Sequence[SweepRow]) -> dict[str, list[SweepRow]]:
    curves: dict[str, list[SweepRow]] = {}
    for row in rows:
        curves.setdefault(row.label, []).append(row)
    return curves


def _beats(row: SweepRow, other: SweepRow) -> bool:
    better = (row.macs, _badness(row)), (other.macs, _badness(other))
    return better[0] != better[1] and all(a <= b for a, b in zip(*better, strict=True))


def _badness(row: SweepRow) -> float:
    low_is_good = "loss" in row.metric or "error" in row.metric
    return row.score if low_is_good else -row.score


def _cells(row: SweepRow, show: Callable[[int], str]) -> tuple[str, ...]:
    if row.score is None:
        return row.label, "–", "", "", ""
    return (
        row.label,
        f"{row.score:.4f}",
        show(row.macs),
        show(row.params),
        f"{row.macs_before / row.macs:.2f}×" if row.macs else "",
    )
