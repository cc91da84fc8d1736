"""What pruning did: data first, rendering apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from keras_sbp.comparing.drawing import ComparedInput
from keras_sbp.printing import (
    Printable,
    change,
    exact,
    fewer,
    grouped,
    named,
    notes,
    ranges,
    short,
    table,
    width_of,
)


@dataclass(frozen=True)
class LayerReport:
    """One layer before and after.

    Attributes:
        name: the layer's name.
        units_before, units_after: output units (for an input: features or channels that the
            network reads).
        params_before, params_after: numbers of weights.
        macs_before, macs_after: multiply-accumulates per example.
        reason: why it was removed, or kept more than the gates asked; "" otherwise.
        behind: for a layer that makes no units of its own, such as a normalisation: the name of
            the layer whose units it passes on; "" otherwise.
        keep: for an input: which of its features or channels the network reads, one boolean
            each; None for layers.
        axis: for an input: the axis along which these lie, counted with the batch; None for
            layers.
    """

    name: str
    units_before: int
    units_after: int
    params_before: int
    params_after: int
    macs_before: int
    macs_after: int
    reason: str = ""
    behind: str = ""
    keep: tuple[bool, ...] | None = None
    axis: int | None = None

    def __repr__(self) -> str:
        said = [repr(self.name), f"units {change(self.units_before, self.units_after)}"]
        said += _costs(self)
        if self.reason:
            said.append(self.reason)
        return f"{type(self).__name__}({', '.join(said)})"


@dataclass(frozen=True)
class GateReport:
    """One gate, or place for one: how many units it had and how many were kept.

    Attributes:
        name: the gate's name.
        units_before: its units.
        units_after: those that its rule kept, and those that came back for `round_to`.
        reason: why units are still there that the rule dropped, or that it could not rank; ""
            where there are none.
    """

    name: str
    units_before: int
    units_after: int
    reason: str = ""

    def __repr__(self) -> str:
        units = f"units {change(self.units_before, self.units_after)}"
        said = [repr(self.name), units, *([self.reason] if self.reason else [])]
        return f"{type(self).__name__}({', '.join(said)})"


@dataclass(frozen=True)
class PruneReport(Printable):
    """The outcome of `prune`.

    Attributes:
        layers: one `LayerReport` for every input, every layer with weights and every opaque
            operation without, in order. Gates are not layers of the network and are not counted.
        gates: one `GateReport` per gate, in order.
        max_abs_error: largest |difference| between the outputs of the given model, without the
            units that the rule dropped, and of the small model on what was `compared`; None with
            `verify=False`.
        compared: what both models were given, one `ComparedInput` (`name`, `shape` with the batch,
            `dtype`, `values` in words) per input; empty with `verify=False`.
        variation: how much the outputs change from example to example, as a fraction of the
            largest output; of the output that changes least. Where it is near 0, agreement shows
            little. None where it is not known.
        gated: whether the given model has gates; `gates` are otherwise where they would stand.
        reason: why no rule decided about any unit; "" where one did.
    """

    layers: tuple[LayerReport, ...]
    gates: tuple[GateReport, ...]
    max_abs_error: float | None
    compared: tuple[ComparedInput, ...] = ()
    variation: float | None = None
    gated: bool = True
    reason: str = ""

    @property
    def units_before(self) -> int:
        """Units of all layers, before."""
        return sum(layer.units_before for layer in self.layers)

    @property
    def units_after(self) -> int:
        """Units of all layers, after."""
        return sum(layer.units_after for layer in self.layers)

    @property
    def params_before(self) -> int:
        """Weights of all layers, before."""
        return sum(layer.params_before for layer in self.layers)

    @property
    def params_after(self) -> int:
        """Weights of all layers, after."""
        return sum(layer.params_after for layer in self.layers)

    @property
    def macs_before(self) -> int:
        """Multiply-accumulates per example, before."""
        return sum(layer.macs_before for layer in self.layers)

    @property
    def macs_after(self) -> int:
        """Multiply-accumulates per example, after."""
        return sum(layer.macs_after for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Returns all figures as plain lists, dicts and numbers, ready for JSON."""
        totals = ("units", "params", "macs")
        return {
            "layers": [asdict(layer) for layer in self.layers],
            "gates": [asdict(gate) for gate in self.gates],
            "max_abs_error": self.max_abs_error,
            "compared": [asdict(each) for each in self.compared],
            "variation": self.variation,
            "gated": self.gated,
            "reason": self.reason,
            **{f"{t}_{when}": getattr(self, f"{t}_{when}") for t in totals for when in _WHEN},
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(_headline(self))
        yield _table(self, options.max_width)
        yield notes(_notes(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self}, {_verified(self)})"

    def __str__(self) -> str:
        units = change(self.units_before, self.units_after)
        return ", ".join([f"units {units}", *_costs(self)])


_WHEN = ("before", "after")
_HEADINGS = ("layer", "units", "params", "MACs")


def _costs(row: LayerReport | PruneReport) -> list[str]:
    return [
        f"params {change(row.params_before, row.params_after)}",
        f"MACs {change(row.macs_before, row.macs_after)}",
    ]


def _verified(report: PruneReport) -> str:
    if report.max_abs_error is None:
        return "not verified: nothing was compared"
    original = "the gated model" if report.gated else "the given model"
    if report.gates and not report.gated:
        original += " without the units that the rule drops"
    return f"max |Δ| {report.max_abs_error:.1e} against {original}"


def _compared(report: PruneReport) -> str:
    said = f" on {'; '.join(map(str, report.compared))}" if report.compared else ""
    if report.variation is not None:
        said += f", which change the outputs by {report.variation:.0%}"
    return said


def _headline(report: PruneReport) -> str:
    said = [
        fewer(report.macs_before, report.macs_after, "MACs"),
        fewer(report.params_before, report.params_after, "params"),
    ]
    if report.gates:
        kept, all_ = (sum(getattr(g, f"units_{w}") for g in report.gates) for w in _WHEN[::-1])
        keeps = "gates keep" if report.gated else "the rule keeps"
        said.append(f"{keeps} {kept:,} of {all_:,} units")
    return f"Pruned: {', '.join(said)}"


def _table(report: PruneReport, width: int) -> RenderableType:
    """The layers that make units, each with those that pass its units on."""
    rows = [row for row in _merged(report.layers) if not _is_reason_only(row)]
    for show in (exact, short):
        lines = grouped((row.name, *_cells(row, show)) for row in rows)
        total = ("total", "", *_cells(report, show)[1:])
        if width_of(_HEADINGS, [*lines, total]) <= width:
            break
    return table(_HEADINGS, lines, width, total)


def _is_reason_only(row: LayerReport) -> bool:
    """Tells whether a row is of an opaque operation: it has no units, weights or MACs."""
    numbers = (row.units_before, row.params_before, row.params_after, row.macs_before)
    return row.keep is None and not any(numbers)


def _cells(row: LayerReport | PruneReport, show: Callable[[int], str]) -> list[str]:
    units, *costs = (
        change(getattr(row, f"{what}_before"), getattr(row, f"{what}_after"), show)
        for what in ("units", "params", "macs")
    )
    # Tokens, sentences and stored constants have no units.
    return [units if row.units_before or row.units_after else "", *costs]


def _merged(rows: Iterable[LayerReport]) -> list[LayerReport]:
    """Adds the costs of layers that make no units to those of the layer that does."""
    merged: list[LayerReport] = []
    numbers: dict[str, int] = {}  # nested models may use a name twice: the last one counts
    for row in rows:
        if row.behind not in numbers:
            numbers[row.name] = len(merged)
            merged.append(row)
            continue
        into = merged[numbers[row.behind]]
        merged[numbers[row.behind]] = replace(
            into,
            params_before=into.params_before + row.params_before,
            params_after=into.params_after + row.params_after,
            macs_before=into.macs_before + row.macs_before,
            macs_after=into.macs_after + row.macs_after,
        )
    return merged


def _notes(report: PruneReport) -> Iterator[str]:
    yield _verified(report) + _compared(report)
    if report.reason:
        yield report.reason
    for row in report.layers:
        if row.keep is not None and 0 < row.units_after < row.units_before:
            yield (
                f"of '{row.name}' (axis {row.axis}) the network reads features "
                f"{ranges(np.flatnonzero(row.keep))} of {row.units_before:,}"
            )
    names: dict[str, list[str]] = {}
    for row in report.layers:
        if row.reason:
            names.setdefault(row.reason, []).append(row.name)
    said = "; ".join(names)
    for gate in report.gates:
        if gate.reason and gate.reason not in said:
            names.setdefault(gate.reason, []).append(gate.name)
    for reason, layers in names.items():
        yield f"{named(layers)}: {reason}"
