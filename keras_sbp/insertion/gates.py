"""The gates of a program: those that the model has, or marks where gates would stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from keras_sbp.layers import SBPLayer
from keras_sbp.program import Op, Program, Scale

Gate = SBPLayer | Scale


def gates_of(program: Program) -> list[Gate]:
    """Returns the gates that a program calls, each once, in order."""
    return list(dict.fromkeys(op.operation for op in program.ops if isinstance(op.operation, Gate)))


def axis_of(call: Op) -> int | None:
    """Returns the axis along which a call of a gate has its units; None for the whole tensor."""
    axis = call.operation.axis
    return None if axis is None else axis % call.outputs[0].rank


def with_decisions(program: Program, decisions: Mapping[Gate, np.ndarray]) -> Program:
    """Returns the program with every gate replaced by its decision; frozen units stay removed.

    Args:
        program: a traced program with gates.
        decisions: for each gate which units stay, booleans of shape (units,).
    """
    scales = {gate: _decided(gate, keep) for gate, keep in decisions.items()}
    ops = [
        replace(op, operation=scales[op.operation]) if isinstance(op.operation, Gate) else op
        for op in program.ops
    ]
    return replace(program, ops=ops)


def _decided(gate: Gate, keep: np.ndarray) -> Scale:
    if isinstance(gate, Scale):
        return Scale(gate.axis, np.where(keep, gate.factor, 0.0), gate.name)
    return Scale(gate.axis, np.where(keep & gate.alive, gate.posterior.mean(), 0.0), gate.name)
