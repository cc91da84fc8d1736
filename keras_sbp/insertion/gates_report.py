"""Which gates govern which layers of a program, and why the other layers have none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import keras
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from keras_sbp.comparing.full_precision import full_precision
from keras_sbp.insertion.gates import Gate, gates_of
from keras_sbp.insertion.place_branches import place_existing_branch_gates
from keras_sbp.insertion.place_units import (
    Wishes,
    place_existing_gates,
    place_unit_gates,
    units_of,
)
from keras_sbp.insertion.plan import Placement, Plan, Refusal
from keras_sbp.layers import SBPLayer
from keras_sbp.printing import Printable, folded, grouped, named, notes
from keras_sbp.program import Op, trace
from keras_sbp.program.facts import unit_axes
from keras_sbp.program.removal import Trials


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


_inserted: WeakKeyDictionary[keras.Model, GatesReport] = WeakKeyDictionary()


@full_precision()
def gates_report(model: keras.Model, *, inputs: Any = None) -> GatesReport:
    """Tells which layers of a model have a gate, and why the others have none.

    For a model that `insert_sbp` has returned, it is what `insert_sbp` did, with the names of the
    layers in the model that it was given. For any other, loaded or gated by hand or without a
    gate, it is worked out; layers that `insert_sbp` would gate say so.

    Args:
        model: a built model.
        inputs: only for a model with its own `call`; see `insert_sbp`.

    Returns:
        A `GatesReport`, with `layers`, `print()`, `summary()` and `to_dict()`.

    Raises:
        TypeError: `model` is not a Keras model, or its own `call` cannot be read as a graph.
        ValueError: `model` is not built.

    Example:

    >>> gated = keras_sbp.insert_sbp(model, exclude="conv1")
    >>> keras_sbp.gates_report(gated).print()
    """
    if model in _inserted:
        return _inserted[model]
    trials = Trials(trace(model, inputs))
    plan = place_unit_gates(trials, Wishes())
    would = [Refusal(each.producers, "insert_sbp would gate its units") for each in plan.placements]
    placed = existing_gates(trials)
    refusals = [*plan.refusals, *would]
    return report_on(trials, placed, replace(plan, refusals=refusals))


def remember(model: keras.Model, report: GatesReport) -> None:
    """Keeps what was done to a model, for as long as the model lives."""
    _inserted[model] = report


def existing_gates(trials: Trials) -> dict[Gate, Placement]:
    """Returns what each gate governs that a program has already."""
    if not gates_of(trials.program):
        return {}
    return place_existing_gates(trials) | place_existing_branch_gates(trials)


def report_on(trials: Trials, placed: Mapping[Gate, Placement], plan: Plan) -> GatesReport:
    """Returns the report on a program.

    Args:
        trials: on the program, which may have gates already.
        placed: what each gate governs.
        plan: what other units the gates of the model remove, and why layers have none; of
            several reasons, the first counts.
    """
    reasons: dict[Op, str] = {}
    for refusal in plan.refusals:
        reasons = dict.fromkeys(refusal.producers, refusal.reason) | reasons
    gates: dict[Op, list[str]] = {}
    governing = [(gate.name, placement) for gate, placement in placed.items()]
    for name, placement in [*governing, *((each.name, each) for each in plan.existing)]:
        # A normalisation may stand for a layer that stays whole, and has a reason.
        producers = [op for op in placement.producers if op not in reasons]
        for op in dict.fromkeys([*producers, *placement.ops]):
            gates.setdefault(op, []).append(name)
    rows: dict[int, GatedLayer] = {}
    for op in trials.program.ops:
        layer = op.operation
        if not getattr(layer, "weights", ()) or isinstance(layer, SBPLayer):
            continue
        reason = reasons.get(op) or _reason(op, trials)
        row = GatedLayer(op.name, units_of(layer, op.outputs[0].shape), (), reason)
        row = rows.setdefault(id(layer), row)
        if op in gates:
            names = tuple(dict.fromkeys([*row.gates, *gates[op]]))
            rows[id(layer)] = replace(row, gates=names, reason="")
    return GatesReport(tuple(rows.values()), tuple(gate.name for gate in placed))


def _reason(op: Op, trials: Trials) -> str:
    """Why there is no gate for a layer that nobody thought of gating."""
    if op in trials.opaque:
        return f"opaque: {trials.opaque[op]}"
    axes = unit_axes(op)
    if len(axes) > 1:
        return "not asked for, as the width of attention"
    if axes and op.outputs[0].shape[axes[0]] == 1:
        return "it makes a single unit"
    return "it makes no units of its own"
