"""Which layers read a gate's units by a linear map, and which of their inputs are whose."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from keras_sbp.insertion.gates import Gate, axis_of
from keras_sbp.program import Op
from keras_sbp.program.facts import linear_map
from keras_sbp.program.handler import OPAQUE, kind
from keras_sbp.program.linear_map import LinearMap
from keras_sbp.program.removal import Outcome, Site, Trials

# The second moments of so many features take half a gigabyte.
MOST_FEATURES = 8192


@dataclass(frozen=True, eq=False)
class Reader:
    """A linear layer that reads units of a gate.

    Attributes:
        op: its only call.
        linear: how it reads them.
        unit_of: for each input feature the unit that it vanishes with, -1 for none; shape (F,).
            A convolution has its features at each kernel position anew, position by position.
    """

    op: Op
    linear: LinearMap
    unit_of: np.ndarray


@dataclass
class Readers:
    """All that read the units of one gate.

    Attributes:
        linear: those of which least squares can be asked, in the order of the program.
        skipped: op → why not this one.
    """

    linear: list[Reader] = field(default_factory=list)
    skipped: dict[Op, str] = field(default_factory=dict)


def find_readers(trials: Trials, gate: Gate) -> Readers:
    """Returns what reads a gate's units, wherever each of them is read alone until then.

    The features that belong to a unit are found by trial: they become constant when it goes.
    Units are tried in groups, by the binary digits of their numbers, so that 2·log2(units)
    trials are enough.

    Args:
        trials: on a traced program; gates let units pass there.
        gate: one of its gates.
    """
    calls = [op for op in trials.program.ops if op.operation is gate]
    readers = Readers()
    if gate.axis is None:
        return readers
    tried = [[_trial(trials, calls, units) for units in pair] for pair in _halves(gate.units)]
    outcomes = [outcome for pair in tried for outcome in pair if outcome is not None]
    reached = {op for each in outcomes for (op, _), known in each.known.items() if known}
    for op in sorted(reached.difference(calls), key=trials.order.__getitem__):
        is_opaque = trials.handlers[op] is OPAQUE
        linear = None if is_opaque else linear_map(op)
        reason = "it is opaque" if is_opaque else _why_not(op, linear)
        reader = _reader(tried, op, linear) if linear is not None and reason is None else None
        if reader is not None and (reader.unit_of >= 0).any():
            readers.linear.append(reader)
        elif not _passes(trials, outcomes, op):
            readers.skipped[op] = reason or "it reads the units along another axis"
    return readers


def _halves(units: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each binary digit the units that have a 0 there, and those that have a 1."""
    numbers = np.arange(units)
    digits = max(1, int(units - 1).bit_length())
    return [
        (np.flatnonzero(numbers >> digit & 1 == 0), np.flatnonzero(numbers >> digit & 1 == 1))
        for digit in range(digits)
    ]


def _trial(trials: Trials, calls: list[Op], units: np.ndarray) -> Outcome | None:
    if not units.size:
        return None
    removed = tuple(int(unit) for unit in units)
    sites = [Site(op.outputs[0], axis_of(op), removed=removed) for op in calls]
    return trials.remove(sites, among=())


def _why_not(op: Op, linear: LinearMap | None) -> str | None:
    if linear is None:
        return f"{kind(op)} is no Dense layer, nor a convolution without groups"
    if op.shared:
        return "its weights are used at several places"
    features = int(np.prod(linear.kernel.shape[:-1]))
    if features > MOST_FEATURES:
        return f"it has {features} input features, more than {MOST_FEATURES}"
    return None


def _reader(tried: list[list[Outcome | None]], op: Op, linear: LinearMap) -> Reader:
    """A feature's unit is known where every digit is: one half frees it, and the other does not."""
    axis, kernel = linear.feature_axis, linear.kernel
    size = kernel.shape[-2]
    unit_of, known = np.zeros(size, int), np.ones(size, bool)
    for digit, pair in enumerate(tried):
        zero, one = (_constant(outcome, op, axis, size) for outcome in pair)
        known &= zero ^ one
        unit_of += one.astype(int) << digit
    unit_of = np.tile(np.where(known, unit_of, -1), int(np.prod(kernel.shape[:-2])))
    return Reader(op, linear, unit_of)


def _constant(outcome: Outcome | None, op: Op, axis: int, size: int) -> np.ndarray:
    known = outcome.known.get((op, 0), {}) if outcome is not None else {}
    return ~np.isnan(known[axis]) if axis in known else np.zeros(size, bool)


def _passes(trials: Trials, outcomes: list[Outcome], op: Op) -> bool:
    """Tells whether anything is known behind an op."""
    behind = [edge for tensor in op.outputs for edge in trials.readers.get(tensor, ())]
    return any(outcome.known.get(edge) for outcome in outcomes for edge in behind)
