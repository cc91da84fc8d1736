"""Whether anything goes where it can."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_sbp.program.program import Tensor
from keras_sbp.program.units import Known, Needs
from keras_sbp.testing.claims import fail
from keras_sbp.testing.trial import Trial


def inputs_get_narrower(trial: Trial, axis: int) -> None:
    """Requires fewer input units to be needed where all but one are 0."""
    gated = _having(trial, axis, [t if "float" in t.dtype else None for t in trial.op.inputs])
    trial.known = [
        {a: np.where(_first(tensor, a), np.nan, 0.0)} if a else {}
        for tensor, a in zip(trial.op.inputs, gated, strict=True)
    ]
    trial.needed = [_varying(known) for known in trial.values()]
    for i, (needs, a) in enumerate(zip(trial.needs(), gated, strict=True)):
        if a and needs is not None and (a not in needs or needs[a].all()):
            fail(
                trial,
                f"all units but one along axis {axis} of input {i} are 0, and needs() asks for "
                "all of them; if none can go, leave the axis out of gated_inputs",
            )


def outputs_get_narrower(trial: Trial, axis: int) -> None:
    """Requires the new call to have fewer output units where one alone is needed."""
    gated = _having(trial, axis, trial.op.outputs)
    trial.known = [{} for _ in trial.op.inputs]
    trial.needed = [
        {a: _first(tensor, a)} if a else {}
        for tensor, a in zip(trial.op.outputs, gated, strict=True)
    ]
    slims = trial.rebuild(extra=False).slims
    for i, (slim, a) in enumerate(zip(slims, gated, strict=True)):
        if a and slim.carries(a).all():
            fail(
                trial,
                f"one unit alone is needed along axis {axis} of output {i}, and the new call "
                "computes all of them; if none can go, leave the axis out of gated_outputs",
            )


def _having(trial: Trial, axis: int, tensors: Sequence[Tensor | None]) -> list[int]:
    """Returns the axis, counted from 0, of each tensor that has units to lose there, else 0."""
    found = [_losing(tensor, axis) for tensor in tensors]
    if not any(found):
        fail(trial, f"nothing has several units along axis {axis}; correct the gated axes")
    return found


def _losing(tensor: Tensor | None, axis: int) -> int:
    if tensor is None or not -tensor.rank <= axis < tensor.rank:
        return 0
    axis %= tensor.rank
    return axis if (tensor.shape[axis] or 0) > 1 else 0


def _first(tensor: Tensor, axis: int) -> np.ndarray:
    return np.arange(tensor.size(axis)) == 0


def _varying(known: Known) -> Needs:
    """What a reader needs that takes constants into its bias, one unit at least."""
    needs = {axis: np.isnan(constant) for axis, constant in known.items()}
    for keep in needs.values():
        keep[0] |= not keep.any()
    return needs
