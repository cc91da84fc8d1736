"""Many rules on one model: accuracy against what remains."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import track

from keras_sbp.evidence.moments import checked_data
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
from keras_sbp.program import trace
from keras_sbp.pruning.prune import prune
from keras_sbp.pruning.verify import examples_of
from keras_sbp.rules import Decision, Network, Rule, UnitGroup

WHOLE = "all units"


def sweep(
    model: keras.Model,
    rules: Mapping[str, Rule | Sequence[Rule]] | Sequence[Rule],
    data: Any,
    *,
    metric: str | None = None,
    batch_size: int | None = None,
    verbose: int = 1,
    **options: Any,
) -> SweepResult:
    """Prunes a model by each of several rules, and evaluates what comes out.

    Nothing is trained and the model is not changed. A rule that leaves nothing of an output, or
    whose budget cannot be met, gets a row that says so, and the sweep goes on.

    Args:
        model: a compiled model; the pruned ones are evaluated with its loss and metrics.
        rules: rules by label. A sequence under one label becomes one curve of the plot. Without
            labels, rules are labelled by what they are.
        data: what `evaluate()` takes: `(x, y)`, or a data set.
        metric: the name of the result of `evaluate()` to compare by. `None` takes the first
            metric that the model is compiled with, or the loss if there is none.
        batch_size: for `evaluate()`.
        verbose: 1 shows a progress bar, 0 does not.
        **options: of `prune`: `round_to`, `reweight`, `verify` and so on.

    Returns:
        A `SweepResult`, with one row for the network with all units, and one for each rule.

    Raises:
        ValueError: the model is not compiled; there is no rule; the metric does not exist.
        TypeError: something else than a rule is among the rules.

    Example:

    >>> l1 = [keras_sbp.L1Norm(keep) for keep in (0.25, 0.5)]
    >>> rules = {"L1": l1, "random": keras_sbp.Random()}
    >>> result = keras_sbp.sweep(model, rules, (x, y), verbose=0)
    >>> [row.label for row in result.rows]
    ['all units', 'L1', 'L1', 'random']
    """
    if not getattr(model, "compiled", False):
        raise ValueError(
            f"Model '{model.name}' is not compiled, so pruned models cannot be evaluated. Expected "
            "a loss and metrics. Call model.compile(loss=..., metrics=[...]) first."
        )
    options = _read_once(model, options)
    chosen = [(WHOLE, _Everything()), *_labelled(rules)]
    rows = []
    for label, rule in track(chosen, "pruning", disable=not verbose, transient=True):
        rows.append(_row(model, label, rule, data, metric, batch_size, options))
    return SweepResult(tuple(rows))


def _read_once(model: keras.Model, options: dict[str, Any]) -> dict[str, Any]:
    """Options whose examples can be given to `prune` again and again: a generator cannot."""
    verify, reweight = options.get("verify", True), options.get("reweight")
    if isinstance(verify, bool) and reweight is None:
        return options
    program = trace(model, options.get("inputs"))
    if not isinstance(verify, bool):
        options = options | {"verify": examples_of(program, verify).arrays}
    if reweight is not None:
        options = options | {"reweight": checked_data(program, reweight, "reweight")}
    return options


class _Everything(Rule):
    """Keeps all units."""

    def importance(self, network: Network) -> dict[UnitGroup, np.ndarray]:
        return {group: np.ones(group.units) for group in network.groups}

    def decide(self, network: Network) -> Decision:
        return Decision({group: np.ones(group.units, bool) for group in network.groups})


def _labelled(rules: Any) -> Iterator[tuple[str, Rule]]:
    pairs = rules.items() if isinstance(rules, Mapping) else [(repr(rule), rule) for rule in rules]
    if not pairs:
        raise ValueError("sweep() expected at least one rule. Received none.")
    for label, several in pairs:
        for rule in several if isinstance(several, list | tuple) else [several]:
            if not isinstance(rule, Rule):
                raise TypeError(
                    "sweep() expected rules, such as keras_sbp.L2Norm(). "
                    f"Received: {rule!r} (of type {type(rule).__name__}) as '{label}'."
                )
            yield label, rule


def _row(
    model: keras.Model,
    label: str,
    rule: Rule,
    data: Any,
    metric: str | None,
    batch_size: int | None,
    options: dict[str, Any],
) -> SweepRow:
    start = time.perf_counter()
    try:
        small, report = prune(model, rule, **options)
    except ValueError as error:
        if label == WHOLE:
            raise
        return SweepRow(label, repr(rule), error=str(error))
    seconds = time.perf_counter() - start
    name, score = _evaluate(model, small, data, metric, batch_size)
    return SweepRow(
        label,
        repr(rule),
        metric=name,
        score=score,
        macs=report.macs_after,
        params=report.params_after,
        macs_before=report.macs_before,
        params_before=report.params_before,
        seconds=seconds,
    )


def _evaluate(
    model: keras.Model, small: keras.Model, data: Any, metric: str | None, batch_size: int | None
) -> tuple[str, float]:
    small.compile_from_config(model.get_compile_config() | {"optimizer": "sgd"})
    x, y = data if isinstance(data, tuple | list) else (data, None)
    results = small.evaluate(x, y, batch_size=batch_size, verbose=0, return_dict=True)
    if metric is None:
        metric = next((name for name in results if name != "loss"), "loss")
    if metric not in results:
        raise ValueError(
            f"sweep() was asked to compare by '{metric}', which evaluate() does not return. "
            f"Expected one of: {', '.join(results)}."
        )
    return metric, float(results[metric])


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
        scores = sorted(row.score for row in self.rows if row.score is not None)
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
    if row.score is None:
        return math.inf
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
