"""The oracle: gated network against small network, on the same inputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_sbp.comparing.drawing import (
    Batch,
    ComparedInput,
    DoesNotRunError,
    affordable,
    batches,
    first_that_runs,
    is_lacking,
)
from keras_sbp.comparing.examples import given
from keras_sbp.comparing.tolerances import (
    DEEP,
    ROUNDING,
    distance,
    largest,
    tolerance,
    variation,
)
from keras_sbp.insertion.gates import Gate, with_decisions
from keras_sbp.layers import deciding
from keras_sbp.program import Program, Scale
from keras_sbp.program.domains import macs_of, sizes_in, slots_of
from keras_sbp.program.run import run
from keras_sbp.telling import warn

MOST_GIVEN = 32  # examples of the user's that are compared

Outputs = list[np.ndarray]


@dataclass(frozen=True)
class Verification:
    """What was compared.

    Attributes:
        max_abs_error: largest |difference| of any output.
        inputs: what both networks were given.
        variation: how much the outputs change from example to example, of the largest output; of
            the output that changes least. None where there was one example.
    """

    max_abs_error: float
    inputs: tuple[ComparedInput, ...]
    variation: float | None


def examples_of(program: Program, examples: Any) -> Batch:
    """Returns the user's examples as a batch, no more of them than is affordable."""
    most = affordable(macs_of(program), MOST_GIVEN)
    return given(examples, slots_of(program), "verify", most)


def verify(
    program: Program,
    decisions: Mapping[Gate, np.ndarray],
    small: keras.Model,
    examples: Batch | None = None,
) -> Verification:
    """Compares the two networks at inference.

    Args:
        program: the original model as a program; the model is called, not changed.
        decisions: what each of its gates keeps.
        small: the pruned model.
        examples: inputs; None draws them.

    Raises:
        RuntimeError: an output differs by more than rounding explains, or is not finite; or the
            original model runs on none of the inputs.
    """
    original = _original(program, decisions)
    batch, expected = _first_run(program, original, examples)
    runs = [(batch, expected)]
    if batch.again and any(_by_example(x, batch.examples) is None for x in expected):
        another = batch.again(seed=1)
        runs.append((another, original(another)))
    worst = max(_compare(program, small, original, *each) for each in runs)
    changes = [_variation(xs, batch.examples) for xs in zip(*(x for _, x in runs), strict=True)]
    allowed = _tolerance(small)
    constant = [
        x.name
        for x, change in zip(small.outputs, changes, strict=True)
        if change is not None and change <= allowed
    ]
    if constant:
        _warn_of_constant(program.model.name, constant, is_given=examples is not None)
    known = [change for change in changes if change is not None]
    return Verification(worst, batch.inputs, min(known, default=None))


def _first_run(
    program: Program, original: Callable[[Batch], Outputs], examples: Batch | None
) -> tuple[Batch, Outputs]:
    """A batch that the original model runs on, with finite outputs if it has such."""
    trials = (
        [examples]
        if examples
        else batches(slots_of(program), macs=macs_of(program), sizes=sizes_in(program))
    )
    try:
        batch, expected = first_that_runs(trials, original)
    except DoesNotRunError as error:
        raise _does_not_run(program.model.name, error, is_given=examples is not None) from error
    if batch.again and not _is_finite(expected):
        another = batch.again(attempt=1)
        with contextlib.suppress(Exception):  # what ran is told of instead
            outputs = original(another)
            if _is_finite(outputs):
                return another, outputs
    return batch, expected


def _compare(
    program: Program,
    small: keras.Model,
    original: Callable[[Batch], Outputs],
    batch: Batch,
    expected: Outputs,
) -> float:
    """The largest difference on one batch."""
    for x, tensor in zip(expected, small.outputs, strict=True):
        _require_finite(x, tensor.name)
    try:
        received = _run(small, batch, program)
    except Exception as error:
        raise RuntimeError(
            "Verification: the pruned model fails on inputs that model "
            f"'{program.model.name}' runs on. It is not returned. Please report this with the "
            "model; verify=False returns it unchecked."
        ) from error
    allowed, worst = _tolerance(small), 0.0
    for x, y, tensor in zip(expected, received, small.outputs, strict=True):
        difference = distance(x, y)
        if not difference <= allowed * largest(x):
            same = all(map(np.array_equal, expected, original(batch)))
            _fail(tensor.name, difference, allowed, largest(x), deterministic=same)
        worst = max(worst, difference)
    return worst


def _original(program: Program, decisions: Mapping[Gate, np.ndarray]) -> Callable[[Batch], Outputs]:
    """What the pruned model must compute: the model itself does, if its gates are told to.

    Where there are marks instead of gates, it is the program, with the user's own layers.
    """
    if any(isinstance(gate, Scale) for gate in decisions):
        decided = with_decisions(program, decisions)

        def marked(batch: Batch) -> Outputs:
            values = run(decided, batch.arrays, decided.outputs)
            return _arrays(values[tensor] for tensor in decided.outputs)

        return marked

    def obeying(batch: Batch) -> Outputs:
        with deciding(decisions):
            return _run(program.model, batch, program)

    return obeying


def _run(model: keras.Model, batch: Batch, program: Program) -> Outputs:
    inputs = keras.tree.pack_sequence_as(program.input_structure, batch.arrays)
    return _arrays(keras.tree.flatten(model(inputs, training=False)))


def _arrays(outputs: Iterable[Any]) -> Outputs:
    arrays = [keras.ops.convert_to_numpy(x) for x in outputs]
    return [x if x.dtype.kind in "OSU" else x.astype(np.float64) for x in arrays]


def _is_finite(outputs: Outputs) -> bool:
    return all(x.dtype.kind != "f" or np.isfinite(x).all() for x in outputs)


def _by_example(output: np.ndarray, examples: int) -> np.ndarray | None:
    """An output with examples along axis 0, where there are several to be told apart."""
    return output if examples > 1 and output.ndim and len(output) == examples else None


def _variation(outputs: tuple[np.ndarray, ...], examples: int) -> float | None:
    """How much an output changes, from example to example or from batch to batch."""
    by_example = _by_example(outputs[0], examples)
    if by_example is not None:
        return variation(by_example)
    return variation(np.stack(outputs)) if len(outputs) > 1 else None


def _does_not_run(name: str, error: DoesNotRunError, *, is_given: bool) -> RuntimeError:
    cause = error.__cause__
    if is_lacking(cause):
        said = (
            f"Verification: model '{name}' cannot run on this machine, where the backend "
            f"({keras.backend.backend()}) lacks an operation of it, so the pruned model cannot be "
            "compared with it. Expected a machine that runs the model. Pass verify=False, and the "
            "report says that nothing was compared; or run this under another backend, such as "
            "KERAS_BACKEND=jax."
        )
    elif is_given:
        said = (
            f"Verification: model '{name}' does not run on the examples that `verify` gives:\n"
            f"{error.tried}\nExpected inputs that model.predict() takes. Give others, or pass "
            "verify=False, and the report says that nothing was compared."
        )
    else:
        said = (
            f"Verification: model '{name}' runs on none of the random inputs that were tried, so "
            f"the pruned model cannot be compared with it:\n{error.tried}\nExpected a model that "
            "takes some of these. Pass verify=examples, a batch of inputs as for predict(); or "
            "verify=False, and the report says that nothing was compared."
        )
    raised = RuntimeError(said)
    raised.add_note(f"The last error was {type(cause).__name__}: {cause}")
    return raised


def _warn_of_constant(name: str, outputs: list[str], *, is_given: bool) -> None:
    remedy = (
        "Give examples that differ more."
        if is_given
        else "Pass verify=examples, a batch of inputs as for predict()."
    )
    warn(
        f"Verification: of model '{name}', the outputs {', '.join(map(repr, outputs))} hardly "
        "change with the inputs that both models were compared on, so that agreement shows "
        f"little. Expected outputs that depend on the inputs. {remedy}"
    )


def _require_finite(expected: np.ndarray, name: str) -> None:
    if not _is_finite([expected]):
        raise RuntimeError(
            f"Verification: output '{name}' of the original model is not finite "
            f"({np.count_nonzero(~np.isfinite(expected))} of {expected.size} values), so "
            "the pruned model cannot be compared with it. Expected finite outputs. Look for NaN "
            "or infinity in the model's weights, or pass verify=False."
        )


def _fail(
    name: str, difference: float, allowed: float, largest: float, *, deterministic: bool
) -> None:
    if not deterministic:
        raise RuntimeError(
            f"Verification: output '{name}' of the original model changes from call to call on "
            "the same input, so the pruned model cannot be compared with it. Expected a model "
            "that is deterministic at inference. Look for layers called with training=True, or "
            "pass verify=False."
        )
    raise RuntimeError(
        f"Verification: output '{name}' of the pruned model differs from the original's by "
        f"{difference:.3g}. Expected at most {allowed * largest:.3g} ({allowed:g} of the largest "
        "output). The pruned model is not returned. Please report this with the model; "
        "verify=False returns it unchecked."
    )


def _tolerance(model: keras.Model) -> float:
    dtypes = {getattr(layer, "compute_dtype", "float32") for layer in model.layers}
    return tolerance(ROUNDING, dtypes) * (10 if len(model.layers) > DEEP else 1)
