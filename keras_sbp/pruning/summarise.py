"""Fills the report from the programs before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_sbp.graph import Analysis, Graph, Tensor, macs, trace
from keras_sbp.graph.keras_internals import input_layer
from keras_sbp.graph.units import kept
from keras_sbp.layers import SBPLayer
from keras_sbp.pruning.reasons import reasons
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
    why = reasons(graph, analysis)
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
                reason="removed: nothing needs it" if new is None else why.get(id(old), ""),
            )
        )
    rows += _products_row(graph, after)
    gates = [GateReport(g.name, keep.size, int(keep.sum())) for g, keep in decisions.items()]
    return PruneReport(tuple(rows), tuple(gates), max_abs_error)


def _products_row(before: Graph, after: Graph) -> list[LayerReport]:
    """One row for the products of two tensors, such as attention, if there are any."""

    def total(graph: Graph) -> int:
        return sum(macs(op) for op in graph.ops if not getattr(op.operation, "weights", ()))

    if not total(before):
        return []
    return [LayerReport("(products without weights)", 0, 0, 0, 0, total(before), total(after))]


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
