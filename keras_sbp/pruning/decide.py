"""From gates to decisions: which units stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from keras_sbp.evidence.network import ProgramNetwork
from keras_sbp.insertion.gates import Gate
from keras_sbp.layers import SBPLayer, find_gates
from keras_sbp.program import Program
from keras_sbp.rules import Decision, PerUnit, Rule, UnitGroup
from keras_sbp.rules.ranking import rounded_up
from keras_sbp.telling import warn

Value = TypeVar("Value")


@dataclass(frozen=True)
class Decisions:
    """Which units of each gate stay: booleans of shape (units,), in the order of the gates.

    Attributes:
        asked: those that the rule keeps.
        keep: these, and the dropped ones that have come back for `round_to`.
        unranked: how many units the rule keeps because it knows nothing of their importance.
    """

    asked: dict[Gate, np.ndarray]
    keep: dict[Gate, np.ndarray]
    unranked: dict[Gate, int]


def decide(network: ProgramNetwork, rule: Rule) -> Decisions:
    """Returns what a rule keeps of each gate of a program, rounded up.

    Args:
        network: the program, as rules see it.
        rule: decides for all gates.

    Raises:
        ValueError: a posterior holds NaN or infinity, or the rule returned something else than
            one boolean per unit.
    """
    for gate in find_gates(network.program.model):
        gate.check_posterior()
    decision = _checked(rule.decide(network), rule)
    asked = {g: _checked_keep(decision.keep, g, rule) & g.alive for g in network.groups}
    keep, importance = asked, decision.importance
    if network.round_to > 1:
        importance = rule.importance(network) if importance is None else importance
        keep = rounded_up(asked, importance, network.round_to)
    unranked = {g: int((np.isnan((importance or {}).get(g, 0.0)) & asked[g]).sum()) for g in asked}

    def by_gate(values: Mapping[UnitGroup, Value]) -> dict[Gate, Value]:
        return {network.gate_of(group): value for group, value in values.items()}

    return Decisions(by_gate(asked), by_gate(keep), by_gate(unranked))


def _checked(answer: Any, rule: Rule) -> Decision:
    if isinstance(answer, Decision):
        return answer
    raise TypeError(
        f"{rule!r} must say what it decides. Expected a keras_sbp.rules.Decision. Received: "
        f"{answer!r} (of type {type(answer).__name__}). Make decide() return Decision(keep), or "
        "Decision(keep, importance) where it took the importance."
    )


def _checked_keep(answers: PerUnit, group: UnitGroup, rule: Rule) -> np.ndarray:
    keep = np.asarray(answers.get(group))
    if keep.shape != (group.units,) or keep.dtype != bool:
        raise ValueError(
            f"The rule for gate '{group.name}' must return one boolean per unit. "
            f"Expected: a bool array of shape {(group.units,)}. "
            f"Received: {keep.dtype} of shape {keep.shape} from {rule!r}. "
            "Fix what the rule keeps."
        )
    return keep


def warn_of_hidden_gates(program: Program) -> None:
    """Warns of gates inside opaque layers: they are out of reach, and stay as they are."""
    seen = {op.operation for op in program.ops if isinstance(op.operation, SBPLayer)}
    hidden = [gate for gate in find_gates(program.model) if gate not in seen]
    if hidden:
        names = ", ".join(f"'{gate.path}'" for gate in hidden)
        warn(
            f"{len(hidden)} gates are inside layers that pruning does not look into, and stay "
            f"there as they are: {names}. Build the network from Functional or Sequential "
            "models to have them pruned."
        )
