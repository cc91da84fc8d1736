"""A program in which gates have been replaced by decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from keras_sbp.graph import Graph, Scale
from keras_sbp.layers import SBPLayer


def with_decisions(graph: Graph, decisions: Mapping[SBPLayer, np.ndarray]) -> Graph:
    """Returns the traced program with every gate replaced by its decision."""
    scales = {gate: _scale(gate, keep) for gate, keep in decisions.items()}
    is_gate = {op: isinstance(op.operation, SBPLayer) for op in graph.ops}
    return replace(
        graph,
        ops=[
            replace(op, operation=scales[op.operation]) if is_gate[op] else op for op in graph.ops
        ],
    )


def _scale(gate: SBPLayer, keep: np.ndarray) -> Scale:
    factor = np.where(keep, gate.posterior.mean(), 0.0)
    return Scale(gate.axis, factor, gate.name)
