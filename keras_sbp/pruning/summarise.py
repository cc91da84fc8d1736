"""Fills the report from the programs before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_sbp.graph import Analysis, Graph, Op, Scale, Tensor, macs, trace
from keras_sbp.graph.handler import kind
from keras_sbp.graph.keras_internals import input_layer
from keras_sbp.graph.units import kept
from keras_sbp.layers import SBPLayer
from keras_sbp.pruning.report import GateReport, LayerReport, PruneReport


def summarise(
    graph: Graph,
    analysis: Analysis,
    small: keras.Model,
    new_layers: Mapping[int, Any],
    decisions: Mapping[SBPLayer, np.ndarray],
    max_abs_error: float | None,
) -> PruneReport:
    """Returns the report on a pruned program; see `PruneReport`."""
    after = trace(small, unfold_layers=False)
    macs_before, macs_after = _macs_by_layer(graph), _macs_by_layer(after)
    shapes_after = {id(op.operation): op.outputs[0].shape for op in after.ops}
    reasons = _reasons(graph, analysis)
    rows = [
        _input_row(x, tensor, analysis)
        for x, tensor in zip(keras.tree.flatten(graph.input_structure), graph.inputs, strict=True)
    ]
    seen: set[int] = set()
    for op in graph.ops:
        old = op.operation
        if id(old) in seen or not getattr(old, "weights", ()):
            continue
        seen.add(id(old))
        new = new_layers.get(id(old))
        rows.append(
            LayerReport(
                name=op.name,
                units_before=_units(op.outputs[0].shape, old),
                units_after=_units(shapes_after.get(id(new), (None, 0)), old),
                params_before=old.count_params(),
                params_after=0 if new is None else new.count_params(),
                macs_before=macs_before[id(old)],
                macs_after=macs_after.get(id(new), 0),
                reason="removed: nothing needs it" if new is None else reasons.get(id(old), ""),
            )
        )
    gates = [GateReport(g.name, keep.size, int(keep.sum())) for g, keep in decisions.items()]
    return PruneReport(tuple(rows), tuple(gates), max_abs_error)


def _macs_by_layer(graph: Graph) -> dict[int, int]:
    totals: dict[int, int] = {}
    for op in graph.ops:
        totals[id(op.operation)] = totals.get(id(op.operation), 0) + macs(op)
    return totals


def _input_row(x: keras.KerasTensor, tensor: Tensor, analysis: Analysis) -> LayerReport:
    needs = analysis.needed.get(tensor)
    axis = next(iter(needs or {}), tensor.rank - 1)
    size = tensor.shape[axis] or 0
    used = 0 if needs is None else int(kept(needs, axis, size).sum())
    reason = "nothing reads it; its signature stays" if needs is None else ""
    return LayerReport(input_layer(x).name, size, used, 0, 0, 0, 0, reason)


def _units(shape: tuple[int | None, ...], layer: Any) -> int:
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    return shape[1 if first else -1] or 0


def _reasons(graph: Graph, analysis: Analysis) -> dict[int, str]:
    """Why layers are opaque, or carry units that a gate removed; by the operation's id."""
    reasons = {id(op.operation): f"opaque: {why}" for op, why in analysis.opaque.items()}
    producers = {tensor: op for op in graph.ops for tensor in op.outputs}
    readers: dict[Tensor, list[Op]] = {}
    for op, i in analysis.edges:
        readers.setdefault(op.inputs[i], []).append(op)
    for op in graph.ops:
        tensor = op.outputs[0]
        if not isinstance(op.operation, Scale) or tensor not in analysis.needed:
            continue
        kept_anyway = _constant_but_needed(tensor, analysis)
        owner = _owner(op, producers)
        if kept_anyway and owner is not None:
            blamed = sorted(_blamed(tensor, graph, analysis, readers))
            reasons.setdefault(
                id(owner.operation), f"{kept_anyway} removed units kept for {', '.join(blamed)}"
            )
    return reasons


def _constant_but_needed(tensor: Tensor, analysis: Analysis) -> int:
    needs = analysis.needed[tensor]
    counts = [
        int((~np.isnan(constant) & kept(needs, axis, constant.size)).sum())
        for axis, constant in analysis.known[tensor].items()
    ]
    return max(counts, default=0)


def _blamed(
    tensor: Tensor, graph: Graph, analysis: Analysis, readers: Mapping[Tensor, list[Op]]
) -> set[str]:
    """The calls behind which a constant unit is no constant any more, so that it must be there."""
    blamed: set[str] = set()
    waiting, seen = [tensor], {tensor}
    while waiting:
        tensor = waiting.pop()
        if tensor in graph.outputs:
            blamed.add("the output")
        for op in readers.get(tensor, []):
            onwards = [
                t for t in op.outputs if t in analysis.needed and _constant_but_needed(t, analysis)
            ]
            if not onwards:
                blamed.add(f"'{op.name}' ({kind(op)})")
            waiting += [t for t in onwards if t not in seen]
            seen.update(onwards)
    return blamed


def _owner(op: Op, producers: Mapping[Tensor, Op]) -> Op | None:
    """The layer with weights that produces what a gate multiplies."""
    current: Op | None = op
    while current is not None and not getattr(current.operation, "weights", ()):
        current = producers.get(current.inputs[0]) if current.inputs else None
    return current
