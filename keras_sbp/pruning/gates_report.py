"""Which layers have a gate, and why the others have none: data first, rendering apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from keras_sbp.printing import Printable, folded, grouped, named, notes


@dataclass(frozen=True)
class GatedLayer:
    """One layer with weights, and its gates or why it has none.

    Attributes:
        name: the layer's name.
        units: its output units; 0 where their number is unknown.
        gates: names of the gates that govern its units, whether it makes them or, as a
            normalisation does, passes them on.
        reason: why there is none; "" otherwise.
    """

    name: str
    units: int
    gates: tuple[str, ...]
    reason: str = ""

    def __repr__(self) -> str:
        said = ", ".join(self.gates) or f"no gate: {self.reason}"
        return f"{type(self).__name__}({self.name!r}, {self.units:,} units, {said})"


@dataclass(frozen=True)
class GatesReport(Printable):
    """Which layers of a model have a gate.

    Attributes:
        layers: one `GatedLayer` for every layer with weights that is not a gate, in order.
        gates: the names of all gates, those on inputs of the model included.
    """

    layers: tuple[GatedLayer, ...]
    gates: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it as plain lists, dicts and numbers, ready for JSON."""
        layers = [asdict(each) | {"gates": list(each.gates)} for each in self.layers]
        return {"layers": layers, "gates": list(self.gates)}

    def __str__(self) -> str:
        count = len(self.gates)
        without = sum(not layer.gates for layer in self.layers)
        gates = f"{count} gate{'' if count == 1 else 's'}"
        return f"{gates}; without one: {without} of {len(self.layers)} layers with weights"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        reasons = list(dict.fromkeys(each.reason for each in self.layers if each.reason))
        marks = [f"({number})" for number in range(1, len(reasons) + 1)]
        shown = dict(zip(reasons, marks, strict=True))
        yield Text(str(self))
        yield _table(self.layers, shown, options.max_width)
        yield notes(reasons, marks)
        governing = {gate for each in self.layers for gate in each.gates}
        others = [gate for gate in self.gates if gate not in governing]
        if others:
            yield notes([f"on units that no layer with weights makes: {named(others)}"])


def _table(layers: Sequence[GatedLayer], marks: Mapping[str, str], width: int) -> Table:
    """Names share the width as they need it; where it is too small, both go on in a new line."""
    rows = grouped(
        (each.name, f"{each.units:,}", ", ".join(each.gates) or f"none {marks[each.reason]}")
        for each in layers
    )
    room = width - 10 - max(len("units"), *(len(row[1]) for row in rows if len(row) > 1))
    longest = [max(len(row[i]) for row in rows if len(row) > i) for i in (0, 2)]
    left = min(longest[0], max(room - longest[1], room // 2))
    result = Table()
    result.add_column("layer", overflow="fold")
    result.add_column("units", justify="right", no_wrap=True)
    result.add_column("gate", overflow="fold")
    for name, *more in rows:
        units, gate = more or ("", "")
        result.add_row(folded(name, left), Text(units), folded(gate, room - left))
    return result
