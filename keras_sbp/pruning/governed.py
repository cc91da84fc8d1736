"""Which gates govern which layers of a program, and why the other layers have none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import keras

from keras_sbp.comparing.full_precision import full_precision
from keras_sbp.graph import Op, trace
from keras_sbp.graph.facts import unit_axes
from keras_sbp.graph.what_if import WhatIf
from keras_sbp.layers import SBPLayer
from keras_sbp.pruning.branches import place_existing_branch_gates
from keras_sbp.pruning.gates import Gate, gates_of
from keras_sbp.pruning.gates_report import GatedLayer, GatesReport
from keras_sbp.pruning.placement import (
    Wishes,
    place_existing_gates,
    place_unit_gates,
    units_of,
)
from keras_sbp.pruning.plan import Placement, Plan, Refusal

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
    what_if = WhatIf(trace(model, inputs))
    plan = place_unit_gates(what_if, Wishes())
    would = [Refusal(each.producers, "insert_sbp would gate its units") for each in plan.placements]
    placed = existing_gates(what_if)
    refusals = [*plan.refusals, *would]
    return report_on(what_if, placed, replace(plan, refusals=refusals))


def remember(model: keras.Model, report: GatesReport) -> None:
    """Keeps what was done to a model, for as long as the model lives."""
    _inserted[model] = report


def existing_gates(what_if: WhatIf) -> dict[Gate, Placement]:
    """Returns what each gate governs that a program has already."""
    if not gates_of(what_if.graph):
        return {}
    return place_existing_gates(what_if) | place_existing_branch_gates(what_if)


def report_on(what_if: WhatIf, placed: Mapping[Gate, Placement], plan: Plan) -> GatesReport:
    """Returns the report on a program.

    Args:
        what_if: trials on the program, which may have gates already.
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
    for op in what_if.graph.ops:
        layer = op.operation
        if not getattr(layer, "weights", ()) or isinstance(layer, SBPLayer):
            continue
        reason = reasons.get(op) or _reason(op, what_if)
        row = GatedLayer(op.name, units_of(layer, op.outputs[0].shape), (), reason)
        row = rows.setdefault(id(layer), row)
        if op in gates:
            names = tuple(dict.fromkeys([*row.gates, *gates[op]]))
            rows[id(layer)] = replace(row, gates=names, reason="")
    return GatesReport(tuple(rows.values()), tuple(gate.name for gate in placed))


def _reason(op: Op, what_if: WhatIf) -> str:
    """Why there is no gate for a layer that nobody thought of gating."""
    if op in what_if.opaque:
        return f"opaque: {what_if.opaque[op]}"
    axes = unit_axes(op)
    if len(axes) > 1:
        return "not asked for, as the width of attention"
    if axes and op.outputs[0].shape[axes[0]] == 1:
        return "it makes a single unit"
    return "it makes no units of its own"
