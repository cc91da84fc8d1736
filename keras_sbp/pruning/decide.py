"""From gates to decisions: which units stay, and what they are multiplied by."""

from __future__ import annotations

import numpy as np

from keras_sbp.graph import Graph, Scale
from keras_sbp.layers import SBPLayer
from keras_sbp.selection import Rule


def decide(gates: list[SBPLayer], rule: Rule | None) -> dict[SBPLayer, np.ndarray]:
    """Returns for each gate the boolean array of units that stay, shape (units,).

    Args:
        gates: built gates.
        rule: decides for all gates; None leaves it to each gate's own rule.

    Raises:
        ValueError: a posterior holds NaN or infinity, or a rule returned something else than
            one boolean per unit.
    """
    decisions = {}
    for gate in gates:
        gate.check_posterior()
        keep = np.asarray((rule or gate.rule).keep(gate.posterior))
        if keep.shape != (gate.units,) or keep.dtype != bool:
            raise ValueError(
                f"The rule for gate '{gate.name}' must return one boolean per unit. "
                f"Expected: a bool array of shape {(gate.units,)}. "
                f"Received: {keep.dtype} of shape {keep.shape} from {rule or gate.rule!r}. "
                "Fix the rule's keep()."
            )
        decisions[gate] = keep
    return decisions


def apply_decisions(graph: Graph, decisions: dict[SBPLayer, np.ndarray]) -> None:
    """Replaces every gate of a traced program by its decision, in place."""
    for op in graph.ops:
        gate = op.operation
        if isinstance(gate, SBPLayer):
            axis = None if gate.axis == () else gate.axis
            factor = np.where(decisions[gate], gate.posterior.mean(), 0.0)
            op.operation = Scale(axis, factor, gate.name)
