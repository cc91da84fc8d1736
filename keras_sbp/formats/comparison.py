"""Running an exported model in its own runtime and comparing it with the Keras model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_sbp.comparing.drawing import ComparedInput
from keras_sbp.comparing.tolerances import ANOTHER_RUNTIME, distance, tolerance, variation
from keras_sbp.formats.base import Runtime
from keras_sbp.formats.inputs import (
    MOST_COMPARED,
    Examples,
    named_outputs,
    random_examples,
    structured,
)
from keras_sbp.formats.precision import compute_dtypes
from keras_sbp.formats.quantization import QUANTIZATIONS

Batch = dict[str, np.ndarray]

# A quantised file passes too if it predicts the same: this share of at least so many examples.
_AGREEMENT = 0.98
_ENOUGH = 50


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How an exported model compares with its Keras model.

    Attributes:
        max_abs_error: max|Δ| over all outputs and examples.
        relative_error: Root mean square of Δ, as a fraction of that of the output; of the worst
            output.
        agreement: Share of predictions (argmax over the last axis) that are the same; of the
            worst output. `None` if no output has several classes.
        examples: How many examples were compared.
        tolerance: What was allowed: max|Δ| as a fraction of max|y|; for a quantised file,
            `relative_error`.
        compared: What both were given, one for each input.
        variation: How much the outputs change from example to example, as a fraction of the
            largest; of the output that changes least. `None` where there was one example.
    """

    max_abs_error: float
    relative_error: float
    agreement: float | None
    examples: int
    tolerance: float
    compared: tuple[ComparedInput, ...] = ()
    variation: float | None = None


def compare(
    model: keras.Model,
    specs: Any,
    runtime: Runtime,
    data: Examples | None,
    quantization: str | None,
) -> Comparison:
    """Compare an exported model with its Keras model.

    Args:
        model: The Keras model the file was made from.
        specs: Its input specs, from `input_specs`.
        runtime: The exported model, loaded.
        data: What to compare on; random inputs if `None`.
        quantization: One of `QUANTIZATIONS`, or `None`.

    Returns:
        A `Comparison`.

    Raises:
        RuntimeError: If they differ by more than the tolerance, or if nothing could be compared.
    """
    data = random_examples(model, specs) if data is None else data
    batches = _some(data.batches)
    expected, received = _outputs(model, specs, runtime, batches)
    allowed = tolerance(ANOTHER_RUNTIME, compute_dtypes(model))
    if quantization:
        allowed = QUANTIZATIONS[quantization].tolerance
    worst = Comparison(0.0, 0.0, None, 0, allowed)
    for name in expected:
        found = _difference(name, expected[name], received[name], allowed)
        if quantization is None:
            _check_close(found, expected[name], f"model '{model.name}' at output '{name}'")
        else:
            _check_quantized(found, f"model '{model.name}' at output '{name}'", quantization)
        worst = _worse(worst, found)
    return dataclasses.replace(
        worst,
        compared=_compared(specs, batches, data.values),
        variation=_variation(expected),
    )


def _outputs(
    model: keras.Model, specs: Any, runtime: Runtime, batches: list[Batch]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    expected: dict[str, list[np.ndarray]] = {}
    received: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        wanted = named_outputs(model(structured(specs, batch), training=False))
        outputs = _by_name(runtime(batch), list(wanted))
        for name, value in wanted.items():
            expected.setdefault(name, []).append(_numpy(value))
            received.setdefault(name, []).append(_numpy(outputs[name]))
    return _joined(expected), _joined(received)


def _compared(
    specs: Any, batches: list[Batch], values: Mapping[str, str]
) -> tuple[ComparedInput, ...]:
    shapes = {
        name: (sum(len(batch[name]) for batch in batches), *array.shape[1:])
        for name, array in batches[0].items()
    }
    return tuple(
        ComparedInput(spec.name, shapes[spec.name], spec.dtype, values[spec.name])
        for spec in keras.tree.flatten(specs)
    )


def _variation(outputs: Mapping[str, np.ndarray]) -> float | None:
    known = [y for y in outputs.values() if len(y) > 1]
    finite = [y for y in known if y.dtype.kind == "O" or np.isfinite(y).all()]
    return min(map(variation, finite), default=None)


def _by_name(outputs: Mapping[str, Any], names: list[str]) -> Mapping[str, Any]:
    """Outputs under the model's names; not every format keeps them, but all keep the order."""
    if set(outputs) == set(names):
        return outputs
    if len(outputs) != len(names):
        raise RuntimeError(
            f"The exported model has {len(outputs)} outputs {list(outputs)}, expected "
            f"{len(names)}: {names}. No file was written."
        )
    return dict(zip(names, outputs.values(), strict=True))


def _difference(
    name: str, expected: np.ndarray, received: np.ndarray, allowed: float
) -> Comparison:
    if expected.dtype.kind == "O":
        return _difference_of_words(expected, received, allowed)
    finite = np.isfinite(expected)
    if not finite.any():
        raise RuntimeError(
            f"Output '{name}' of the model is NaN or infinite on every input tried, so there is "
            "nothing to compare the exported file with. Check the model's weights, or pass "
            "verify=False."
        )
    if expected.shape != received.shape or not np.array_equal(finite, np.isfinite(received)):
        return Comparison(np.inf, np.inf, 0.0, len(expected), allowed)
    delta = expected[finite] - received[finite]
    scale = float(np.sqrt(np.mean(expected[finite] ** 2)))
    error = float(np.sqrt(np.mean(delta**2)))
    return Comparison(
        max_abs_error=float(np.max(np.abs(delta))),
        relative_error=error / scale if scale else (np.inf if error else 0.0),
        agreement=_agreement(expected, received),
        examples=len(expected),
        tolerance=allowed,
    )


def _difference_of_words(expected: np.ndarray, received: np.ndarray, allowed: float) -> Comparison:
    apart = distance(expected, received)
    return Comparison(apart, apart, None, len(expected), allowed)


def _agreement(expected: np.ndarray, received: np.ndarray) -> float | None:
    if expected.ndim < 2 or expected.shape[-1] < 2:
        return None
    return float(np.mean(expected.argmax(axis=-1) == received.argmax(axis=-1)))


def _check_close(found: Comparison, expected: np.ndarray, what: str) -> None:
    scale = 1.0
    if expected.dtype.kind != "O":
        scale = float(np.max(np.abs(expected[np.isfinite(expected)])))
    if not found.max_abs_error <= found.tolerance * scale:
        raise RuntimeError(
            f"The exported model differs from {what}: expected max|Δ| <= {found.tolerance:g} * "
            f"max|y| = {found.tolerance * scale:.3g}, received {found.max_abs_error:.3g}. No file "
            "was written. Pass verify=False to export it anyway."
        )


def _check_quantized(found: Comparison, what: str, quantization: str) -> None:
    agrees = (
        found.agreement is not None and found.examples >= _ENOUGH and found.agreement >= _AGREEMENT
    )
    if not agrees and not found.relative_error <= found.tolerance:
        same = "" if found.agreement is None else f", {found.agreement:.0%} of predictions the same"
        raise RuntimeError(
            f"The exported model differs from {what}: expected, with quantization="
            f"'{quantization}', a relative error of at most {found.tolerance:g} (root mean "
            f"square), or {_AGREEMENT:.0%} of {_ENOUGH} predictions or more the same; received "
            f"{found.relative_error:.3g} over {found.examples} examples{same}. No file was "
            "written. Calibrate with inputs like those in use, choose a finer quantization, or "
            "pass verify=False to export it anyway."
        )


def _worse(a: Comparison, b: Comparison) -> Comparison:
    agreements = [c.agreement for c in (a, b) if c.agreement is not None]
    return Comparison(
        max_abs_error=max(a.max_abs_error, b.max_abs_error),
        relative_error=max(a.relative_error, b.relative_error),
        agreement=min(agreements, default=None),
        examples=max(a.examples, b.examples),
        tolerance=b.tolerance,
    )


def _some(batches: list[Batch]) -> list[Batch]:
    """Batches from all over the data, some 256 examples in all."""
    size = len(next(iter(batches[0].values())))
    step = max(1, len(batches) * size // MOST_COMPARED)
    return batches[::step]


def _joined(values: dict[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    # The first axis of an output need not be the batch's, but in all but odd cases it is.
    return {
        name: np.concatenate(arrays) if arrays[0].ndim else np.stack(arrays)
        for name, arrays in values.items()
    }


def _numpy(value: Any) -> np.ndarray:
    """A result as float64, or where it is words, as an array of `str` objects."""
    array = np.asarray(keras.ops.convert_to_numpy(value))
    if array.dtype.kind not in "OSU":
        return array.astype("float64")
    words = [word.decode() if isinstance(word, bytes) else word for word in array.ravel()]
    return np.array(words, object).reshape(array.shape)
