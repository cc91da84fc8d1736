"""A handler's answers beside what the layer computes."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from keras_sbp.program.program import Tensor
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs
from keras_sbp.testing import draws
from keras_sbp.testing.policies import close
from keras_sbp.testing.trial import Trial


def fail(trial: Trial, what: str) -> NoReturn:
    """Raises what was found, with the circumstances."""
    raise AssertionError(
        f"{type(trial.handler).__name__}: {what}. Trial: {trial.where}; known of the inputs: "
        f"{shown(trial.known)}; needed of the outputs: {shown(trial.needed)}."
    )


def values_hold(trial: Trial, claimed: list[Known], outputs: list[np.ndarray]) -> None:
    """Requires every claimed constant to be the output's value all over its unit."""
    for number, (tensor, known, output) in enumerate(
        zip(trial.op.outputs, claimed, outputs, strict=True)
    ):
        for axis, constant in known.items():
            for unit in np.flatnonzero(~np.isnan(constant)):
                found = np.take(output, unit, axis)
                if not close(np.full_like(found, constant[unit]), found, tensor.dtype):
                    fail(
                        trial,
                        f"values() says that unit {unit} along axis {axis} of output {number} is "
                        f"{constant[unit]:g}, but it holds {found.min():g} to {found.max():g}",
                    )


def needs_suffice(trial: Trial, needs: list[Needs | None]) -> None:
    """Requires needed outputs to stay as they are when inputs that are not needed change."""
    before = trial.inputs()
    after = [
        _changed(trial, tensor, known, each, numbers)
        for tensor, known, each, numbers in zip(
            trial.op.inputs, trial.known, needs, before, strict=True
        )
    ]
    pairs = zip(trial.run(before), trial.run(after), strict=True)
    for number, (expected, received) in enumerate(pairs):
        tensor, needed = trial.op.outputs[number], trial.needed[number]
        if needed is None:
            continue
        one, other = draws.restricted(expected, needed), draws.restricted(received, needed)
        if not close(one, other, tensor.dtype):
            fail(
                trial,
                f"needed units of output {number} change by {np.abs(one - other).max():.3g} when "
                f"inputs change that needs() can do without: it asks for {shown(needs)}",
            )


def _changed(
    trial: Trial, tensor: Tensor, known: Known, needs: Needs | None, numbers: np.ndarray
) -> np.ndarray:
    is_needed = np.zeros(numbers.shape, bool) if needs is None else draws.block(tensor, needs)
    is_fixed = ~np.isnan(draws.places(tensor, known))
    others = trial.draw(trial.rng, numbers.shape, tensor.dtype)
    return np.where(is_needed | is_fixed, numbers, others)


def rebuilt_is_the_same(trial: Trial, *, rescaled: bool) -> bool:
    """Requires the new call to give what the layer gives, on all units that it carries.

    Args:
        rescaled: whether to multiply one output first, where the handler offers that.

    Returns:
        Whether anything was multiplied.
    """
    rebuilt = trial.rebuild()
    offer = _first_offer(rebuilt.needed_slims()) if rescaled else None
    if rescaled and offer is None:
        return False
    inputs = trial.inputs()
    expected = trial.run(inputs)
    after = ""
    if offer is not None:
        number, axis = offer
        after = f" after rescale along axis {axis} of output {number}"
        factor = trial.rng.uniform(0.5, 2.0, trial.op.outputs[number].size(axis))
        rebuilt.slims[number].rescale[axis](factor)
        expected[number] = expected[number] * draws.along(factor, axis, expected[number].ndim)
    for i, received in rebuilt.run(inputs, trial.rng).items():
        wanted = draws.restricted(expected[i], rebuilt.slims[i].carried)
        if not close(wanted, received, trial.op.outputs[i].dtype):
            fail(
                trial,
                f"output {i} of the rebuilt call differs from the layer's by "
                f"{np.abs(wanted - received).max():.3g}{after}; the inputs carried "
                f"{shown([s and s.slim.carried for s in rebuilt.sources])}, with pending scales "
                f"{shown([s and s.slim.scale for s in rebuilt.sources])}",
            )
    return True


def _first_offer(slims: dict[int, Slim]) -> tuple[int, int] | None:
    offers = ((i, axis) for i, slim in slims.items() for axis in slim.rescale)
    return next(offers, None)


def shown(things: Any) -> str:
    """Knowledge and needs, short: T and F for booleans, _ for what varies."""
    if isinstance(things, list):
        return "[" + ", ".join(shown(each) for each in things) + "]"
    if isinstance(things, dict):
        return "{" + ", ".join(f"{axis}: {shown(each)}" for axis, each in things.items()) + "}"
    if isinstance(things, np.ndarray) and things.dtype == bool:
        return "".join("T" if each else "F" for each in things)
    if isinstance(things, np.ndarray):
        return "(" + " ".join("_" if np.isnan(each) else f"{each:.3g}" for each in things) + ")"
    return str(things)
