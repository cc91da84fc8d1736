"""What pruning did: data first, rendering apart."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


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
    """

    name: str
    units_before: int
    units_after: int
    params_before: int
    params_after: int
    macs_before: int
    macs_after: int
    reason: str = ""


@dataclass(frozen=True)
class GateReport:
    """One gate: how many units it had and how many its rule kept."""

    name: str
    units_before: int
    units_after: int


@dataclass(frozen=True)
class PruneReport:
    """The outcome of `prune`.

    Attributes:
        layers: one `LayerReport` for every input and every layer with weights, in order. Gates
            are not layers of the network and are not counted.
        gates: one `GateReport` per gate, in order.
        max_abs_error: largest |difference| between the outputs of the gated and of the small
            model on random inputs; None with `verify=False`.
    """

    layers: tuple[LayerReport, ...]
    gates: tuple[GateReport, ...]
    max_abs_error: float | None

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
            **{f"{t}_{when}": getattr(self, f"{t}_{when}") for t in totals for when in _WHEN},
        }

    def print(self, console: Console | None = None) -> None:
        """Prints the report as a table.

        Args:
            console: where to; standard output by default.
        """
        (console or Console()).print(_table(self))

    def __str__(self) -> str:
        return (
            f"units {self.units_before} → {self.units_after}, "
            f"params {self.params_before} → {self.params_after}, "
            f"MACs {self.macs_before} → {self.macs_after}"
        )


_WHEN = ("before", "after")


def _table(report: PruneReport) -> Table:
    title = "Pruned, not verified"
    if report.max_abs_error is not None:
        title = f"Pruned, max |Δ| {report.max_abs_error:.1e} against the gated model"
    table = Table(title=title)
    table.add_column("layer")
    for heading in ("units", "params", "MACs"):
        table.add_column(heading, justify="right")
    table.add_column("why", overflow="fold")
    for row in (*report.layers, report):
        if row is report:
            table.add_section()
        table.add_row(
            "total" if row is report else row.name,
            _change(row.units_before, row.units_after),
            _change(row.params_before, row.params_after),
            _change(row.macs_before, row.macs_after),
            _ratio(report) if row is report else row.reason,
        )
    return table


def _change(before: int, after: int) -> str:
    return f"{before:,}" if before == after else f"{before:,} → {after:,}"


def _ratio(report: PruneReport) -> str:
    if not report.macs_after:
        return ""
    return f"{report.macs_before / report.macs_after:.2f}× fewer MACs"
