"""Which gates govern which layers of a program, and why the other layers have none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import keras

from keras_sbp.comparing.full_precision import full_precision
from keras_sbp.graph import Analysis, Graph, Op, analyse, trace
from keras_sbp.graph.what_if import WhatIf
from keras_sbp.layers import SBPLayer
from keras_sbp.pruning.branches import place_existing_branch_gates
from keras_sbp.pruning.gates_report import GatedLayer, GatesReport
from keras_sbp.pruning.placement import (
    Wishes,
    place_existing_gates,
    place_unit_gates,
    unit_axes,
    what_if_of,
)
from keras_sbp.pruning.plan import Placement, Plan, Refusal
from keras_sbp.pruning.summarise import units_of

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
    graph = trace(model, inputs)
    analysis = analyse(graph)
    what_if = what_if_of(graph, analysis)
    plan = place_unit_gates(graph, analysis, what_if, Wishes())
    would = [Refusal(each.producers, "insert_sbp would gate its units") for each in plan.placements]
    placed = existing_gates(graph, analysis, what_if)
    refusals = [*plan.refusals, *would]
    return report_on(graph, analysis, placed, replace(plan, refusals=refusals))


def remember(model: keras.Model, report: GatesReport) -> None:
    """Keeps what was done to a model, for as long as the model lives."""
    _inserted[model] = report


def existing_gates(graph: Graph, analysis: Analysis, what_if: WhatIf) -> dict[SBPLayer, Placement]:
    """Returns what each gate governs that the model has already."""
    if not any(isinstance(op.operation, SBPLayer) for op in graph.ops):
        return {}
    found = place_existing_gates(graph, analysis, what_if)
    return found | place_existing_branch_gates(graph, what_if)


def report_on(
    graph: Graph,
    analysis: Analysis,
    placed: Mapping[SBPLayer, Placement],
    plan: Plan,
) -> GatesReport:
    """Returns the report on a program.

    Args:
        graph: the program, which may have gates already.
        analysis: of the program.
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
    for op in graph.ops:
        layer = op.operation
        if not getattr(layer, "weights", ()) or isinstance(layer, SBPLayer):
            continue
        reason = reasons.get(op) or _reason(op, analysis)
        row = GatedLayer(op.name, units_of(layer, op.outputs[0].shape), (), reason)
        row = rows.setdefault(id(layer), row)
        if op in gates:
            names = tuple(dict.fromkeys([*row.gates, *gates[op]]))
            rows[id(layer)] = replace(row, gates=names, reason="")
    return GatesReport(tuple(rows.values()), tuple(gate.name for gate in placed))


def _reason(op: Op, analysis: Analysis) -> str:
    """Why there is no gate for a layer that nobody thought of gating."""
    if op in analysis.opaque:
        return f"opaque: {analysis.opaque[op]}"
    axes = unit_axes(op)
    if len(axes) > 1:
        return "not asked for, as the width of attention"
    if axes and op.outputs[0].shape[axes[0]] == 1:
        return "it makes a single unit"
    return "it makes no units of its own"
