"""Which of a gate's units its readers can do with, gate after gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from keras_sbp.graph import Graph
from keras_sbp.graph.what_if import WhatIf
from keras_sbp.pruning.gates import Gate
from keras_sbp.pruning.input_moments import Meter, State
from keras_sbp.pruning.readers import find_readers
from keras_sbp.pruning.reweight import new_weights, removed_rows
from keras_sbp.rules.least_squares import Selection, select


def select_units(
    graph: Graph,
    what_if: WhatIf,
    gates: Sequence[Gate],
    data: Any,
    wanted: Mapping[Gate, int] | None,
    *,
    variant: str = "layer",
    reweight: bool = False,
    ridge: float = 1e-8,
) -> dict[Gate, Selection | None]:
    """Returns for each gate its units in greedy order, as `Network.input_change` says.

    Each gate costs a run of the network up to its readers on all data, or up to three where
    earlier gates have been decided.

    Args:
        graph: a traced program, with its gates.
        what_if: trials on it.
        gates: in the order in which they are decided.
        data: inputs of the model.
        wanted: how many units of each gate to choose; None orders all units of each, in the
            network with all units there.
        variant: where features and targets come from.
        reweight: whether layers behind decided gates have their best weights from then on.
        ridge: of the selection.
    """
    meter, original = Meter(graph, data), State.original(graph)
    pruned = original
    results: dict[Gate, Selection | None] = {}
    for gate in gates:
        readers = find_readers(graph, what_if, gate).linear
        results[gate] = None
        if not readers:
            continue
        inputs = original if variant == "layer" else pruned
        targets = pruned if variant == "sequential" else original
        moments = [each.all for each in meter.measure(readers, inputs, targets)]
        count = None if wanted is None else wanted[gate]
        result = select(moments, gate.units, count, ridge=ridge, relative=True)
        del moments
        results[gate] = result
        if count is None or variant == "layer":
            continue
        keep = np.isin(np.arange(gate.units), result.order)
        pruned = replace(pruned, decisions=pruned.decisions | {gate: keep})
        if not reweight:
            continue
        for reader in readers:
            [measured] = meter.measure([reader], pruned, targets)
            weights = new_weights(reader.op, measured, removed_rows(reader, keep))
            pruned = replace(pruned, weights=pruned.weights + weights)
    return results
