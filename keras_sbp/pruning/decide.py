"""From gates to decisions: which units stay."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from keras_sbp.graph import Graph, find_gates
from keras_sbp.layers import SBPLayer
from keras_sbp.pruning.network import ProgramNetwork
from keras_sbp.rules import Rule, UnitGroup
from keras_sbp.rules.ranking import rounded_up
from keras_sbp.telling import warn


def decide(network: ProgramNetwork, rule: Rule) -> dict[SBPLayer, np.ndarray]:
    """Returns for each gate of a program what the rule keeps: booleans of shape (units,).

    Args:
        network: the program, as rules see it.
        rule: decides for all gates.

    Raises:
        ValueError: a posterior holds NaN or infinity, or the rule returned something else than
            one boolean per unit.
    """
    for gate in find_gates(network.graph.model):
        gate.check_posterior()
    answers = rule.decide(network)
    keep = {group: _checked(answers, group, rule) & group.alive for group in network.groups}
    return {network.gate_of(group): kept for group, kept in keep.items()}


def rounded(
    network: ProgramNetwork, rule: Rule, decisions: Mapping[SBPLayer, np.ndarray]
) -> dict[SBPLayer, np.ndarray]:
    """Returns decisions in which dropped units have come back for the network's `round_to`.

    Args:
        network: the program, as rules see it.
        rule: says which units are worth most.
        decisions: of that rule; see `decide`.
    """
    if network.round_to == 1:
        return dict(decisions)
    keep = {group: decisions[network.gate_of(group)] for group in network.groups}
    keep = rounded_up(keep, rule.importance(network), network.round_to)
    return {network.gate_of(group): kept for group, kept in keep.items()}


def _checked(answers: Mapping[UnitGroup, np.ndarray], group: UnitGroup, rule: Rule) -> np.ndarray:
    keep = np.asarray(answers.get(group))
    if keep.shape != (group.units,) or keep.dtype != bool:
        raise ValueError(
            f"The rule for gate '{group.name}' must return one boolean per unit. "
            f"Expected: a bool array of shape {(group.units,)}. "
            f"Received: {keep.dtype} of shape {keep.shape} from {rule!r}. "
            "Fix what the rule keeps."
        )
    return keep


def warn_of_hidden_gates(graph: Graph) -> None:
    """Warns of gates inside opaque layers: they are out of reach, and stay as they are."""
    seen = {op.operation for op in graph.ops if isinstance(op.operation, SBPLayer)}
    hidden = [gate for gate in find_gates(graph.model) if gate not in seen]
    if hidden:
        names = ", ".join(f"'{gate.path}'" for gate in hidden)
        warn(
            f"{len(hidden)} gates are inside layers that pruning does not look into, and stay "
            f"there as they are: {names}. Build the network from Functional or Sequential "
            "models to have them pruned."
        )
