"""Telling gates what to keep, for as long as a `with` block lasts."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Mapping

import keras
import numpy as np

Decisions = Mapping[keras.layers.Layer, np.ndarray]

_decisions: contextvars.ContextVar[Decisions] = contextvars.ContextVar(
    "keras_sbp_decisions",
    default={},  # noqa: B039 (never mutated, always replaced)
)


@contextlib.contextmanager
def deciding(decisions: Decisions) -> Iterator[None]:
    """Makes gates obey given decisions instead of their own rules.

    Inside the block, an inference call of a gate in the mapping keeps what
    the mapping says; the other gates go on asking their rules. So a model can
    be run as if it had other rules, without touching it. Units that a gate
    has frozen stay removed. Blocks nest, the inner one first.

    Call the model directly, `model(x)`. The functions behind `predict()` and
    `evaluate()` are compiled once and keep the decisions of that moment.

    Args:
        decisions: Maps built gates to boolean arrays of shape `(units,)`, True
            for the units that stay.

    Raises:
        ValueError: If an array does not have one entry per unit of its gate.
    """
    checked = {gate: check_decision(gate, keep) for gate, keep in decisions.items()}
    token = _decisions.set({**_decisions.get(), **checked})
    try:
        yield
    finally:
        _decisions.reset(token)


def decision_for(gate: keras.layers.Layer) -> np.ndarray | None:
    """Returns what the surrounding `deciding` blocks say of a gate, else None."""
    return _decisions.get().get(gate)


def check_decision(gate: keras.layers.Layer, keep: np.ndarray) -> np.ndarray:
    """Returns `keep` as an array, if it has one boolean per unit of the gate."""
    keep = np.asarray(keep)
    if keep.shape != (gate.units,) or keep.dtype != bool:
        raise ValueError(
            f"The decision for gate '{gate.name}' does not fit it. Expected a boolean array of "
            f"shape ({gate.units},). Received: dtype {keep.dtype}, shape {keep.shape}. "
            "Pass one True or False per unit."
        )
    return keep
