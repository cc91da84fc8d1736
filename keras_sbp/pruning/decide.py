"""From gates to decisions: which units stay, and what they are multiplied by."""

from __future__ import annotations

import warnings

import numpy as np

from keras_sbp.graph import Graph, Scale, find_gates
from keras_sbp.layers import SBPLayer
from keras_sbp.selection import Rule


def decide(graph: Graph, rule: Rule | None) -> dict[SBPLayer, np.ndarray]:
    """Returns for each gate of a program the boolean array of units that stay, shape (units,).

    Gates inside opaque layers are out of reach: they stay as they are, and a warning says so.

    Args:
        graph: a traced program.
        rule: decides for all gates; None leaves it to each gate's own rule.

    Raises:
        ValueError: a posterior holds NaN or infinity, or a rule returned something else than
            one boolean per unit.
    """
    for gate in find_gates(graph.model):
        gate.check_posterior()
    gates = [op.operation for op in graph.ops if isinstance(op.operation, SBPLayer)]
    _warn_of_hidden(graph, gates)
    return {gate: _keep(gate, rule or gate.rule) for gate in gates}


def _keep(gate: SBPLayer, rule: Rule) -> np.ndarray:
    keep = np.asarray(rule.keep(gate.posterior))
    if keep.shape != (gate.units,) or keep.dtype != bool:
        raise ValueError(
            f"The rule for gate '{gate.name}' must return one boolean per unit. "
            f"Expected: a bool array of shape {(gate.units,)}. "
            f"Received: {keep.dtype} of shape {keep.shape} from {rule!r}. "
            "Fix the rule's keep()."
        )
    return keep


def _warn_of_hidden(graph: Graph, gates: list[SBPLayer]) -> None:
    hidden = [gate for gate in find_gates(graph.model) if gate not in gates]
    if hidden:
        names = ", ".join(f"'{gate.path}'" for gate in hidden)
        warnings.warn(
            f"{len(hidden)} gates are inside layers that pruning does not look into, and stay "
            f"there as they are: {names}. Build the network from Functional or Sequential "
            "models to have them pruned.",
            stacklevel=4,
        )


def apply_decisions(graph: Graph, decisions: dict[SBPLayer, np.ndarray]) -> None:
    """Replaces every gate of a traced program by its decision, in place."""
    for op in graph.ops:
        gate = op.operation
        if isinstance(gate, SBPLayer):
            axis = None if gate.axis == () else gate.axis
            factor = np.where(decisions[gate], gate.posterior.mean(), 0.0)
            op.operation = Scale(axis, factor, gate.name)
