"""Where the gates of a model are, and what goes with their units."""

from __future__ import annotations

import keras

from keras_sbp.layers import SBPLayer, find_gates
from keras_sbp.program import read
from keras_sbp.pruning import prune
from tests.pruning.oracle import drop_units, randomise


def gate_map(model: keras.Model) -> dict[str, list[str]]:
    """Gate → the calls that it stands behind, in order."""
    program = read(model)
    makers = {tensor: op.name for op in program.ops for tensor in op.outputs}
    found: dict[str, list[str]] = {}
    for op in program.ops:
        if isinstance(op.operation, SBPLayer):
            found.setdefault(op.name, []).append(makers.get(op.inputs[0], "input"))
    return found


def units_after_half(model: keras.Model) -> dict[str, int]:
    """Layer → its units when every second unit of every gate goes; only layers that shrink.

    Weights are random, so that no constant is 0 by chance. A unit that stays for another reason
    than its gate, a constant at a padded border say, would show.
    """
    randomise(model, drop=0.0)
    for gate in find_gates(model):
        drop_units(gate, list(range(1, gate.units, 2)) if gate.units > 1 else [0])
    _, report = prune(model)
    return {r.name: r.units_after for r in report.layers if r.units_after != r.units_before}
