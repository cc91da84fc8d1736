"""A handler's facts beside what is left of the layer where units go."""

from __future__ import annotations

import numpy as np

from keras_sbp.program import facts, read
from keras_sbp.program.registry import stock_class
from keras_sbp.testing.claims import fail
from keras_sbp.testing.policies import close
from keras_sbp.testing.trial import Rebuilt, Trial


def kernels_have_a_row_per_unit(trial: Trial) -> None:
    """Requires as many rows as there are units, along every axis of units."""
    output = trial.op.outputs[0]
    for axis in facts.unit_axes(trial.op):
        rows = trial.handler.kernel_rows(trial.op, axis)
        if rows is not None and rows.shape[:1] != (output.shape[axis],):
            fail(
                trial,
                f"kernel_rows() must have one row for each of {output.shape[axis]} units along "
                f"axis {axis}, and its shape is {rows.shape}",
            )


def facts_follow_units(trial: Trial, axis: int) -> None:
    """Requires multiplications, and the rows of kernels, to go with the units of output 0."""
    op = trial.op
    output, axis = op.outputs[0], axis % op.outputs[0].rank
    trial.known = [{} for _ in op.inputs]
    trial.needed = [None for _ in op.outputs]
    trial.needed[0] = {axis: np.arange(output.size(axis)) >= output.size(axis) // 2}
    rebuilt = trial.rebuild(extra=False)
    carried = rebuilt.slims[0].carries(axis)
    if carried.all():
        return
    new = read(rebuilt.model).ops
    before, after = facts.macs(op), sum(facts.macs(each) for each in new)
    if before and after >= before:
        fail(
            trial,
            f"macs() must fall where units go: it says {before}, and {after} where "
            f"{carried.sum()} of {carried.size} units along axis {axis} are left",
        )
    made_anew = [each for each in new if stock_class(each.operation) is stock_class(op.operation)]
    if axis not in facts.unit_axes(op) or len(made_anew) != 1 or _lack_units(rebuilt):
        return
    rows, left = (facts.kernel_rows(each, axis) for each in (op, made_anew[0]))
    if rows is None and left is None:
        return
    wanted = np.zeros(0) if rows is None else rows[carried]
    found = np.zeros(0) if left is None else left
    if found.shape != wanted.shape or not close(wanted, found, output.dtype):
        fail(
            trial,
            f"kernel_rows() must go with their units: of axis {axis} the units "
            f"{np.flatnonzero(carried)} are left, and the new layer has other rows than theirs",
        )


def _lack_units(rebuilt: Rebuilt) -> bool:
    """Tells whether inputs are narrower, so that rows are shorter: by weights of 0."""
    slims = [source.slim for source in rebuilt.sources if source is not None]
    return any(not keep.all() for slim in slims for keep in slim.carried.values())
