"""The oracle: gated network against small network, on random inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_sbp.graph.keras_internals import functional_view, input_structure
from keras_sbp.layers import SBPLayer, deciding

BATCH_SIZE = 8
UNKNOWN_SIZE = 64  # what an unknown image or sequence size becomes

# Largest |difference| / largest |output|: rounding of one network against another.
TOLERANCE = {"float64": 1e-9, "float32": 1e-5, "float16": 2e-2, "bfloat16": 1.5e-1}
DEEP = 100  # above this many layers, rounding adds up: ten times the tolerance


def random_inputs(model: keras.Model, seed: int = 0) -> Any:
    """Returns one random batch in the structure that the model is called with.

    Floating-point inputs are standard normal; integers and booleans are 0 or 1.
    """
    rng = np.random.default_rng(seed)

    def draw(x: keras.KerasTensor) -> np.ndarray:
        shape = [x.shape[0] or BATCH_SIZE, *(n or UNKNOWN_SIZE for n in x.shape[1:])]
        if "float" in x.dtype:
            return rng.standard_normal(shape).astype("float64" if x.dtype == "float64" else "f4")
        return rng.integers(0, 2, shape).astype(x.dtype)

    return keras.tree.map_structure(draw, input_structure(functional_view(model)))


def verify(
    gated: keras.Model, small: keras.Model, decisions: Mapping[SBPLayer, np.ndarray]
) -> float:
    """Compares the two networks at inference; returns the largest |difference| seen.

    Args:
        gated: the original model; it is called, not changed.
        small: the pruned model.
        decisions: what each gate keeps.

    Raises:
        RuntimeError: an output differs by more than rounding explains, or is not finite.
    """
    inputs = random_inputs(small)
    expected = _run(gated, inputs, decisions)
    received = _run(small, inputs, {})
    allowed = _tolerance(small)
    worst = 0.0
    for x, y, tensor in zip(expected, received, small.outputs, strict=True):
        _require_finite(x, tensor.name)
        difference, largest = _distance(x, y), float(np.abs(x).max(initial=0.0))
        if not difference <= allowed * largest:
            again = _run(gated, inputs, decisions)
            same = all(np.array_equal(a, b) for a, b in zip(expected, again, strict=True))
            _fail(tensor.name, difference, allowed, largest, deterministic=same)
        worst = max(worst, difference)
    return worst


def _run(
    model: keras.Model, inputs: Any, decisions: Mapping[SBPLayer, np.ndarray]
) -> list[np.ndarray]:
    with deciding(decisions):
        outputs = keras.tree.flatten(model(inputs, training=False))
    return [keras.ops.convert_to_numpy(x).astype(np.float64) for x in outputs]


def _distance(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.abs(x - y).max(initial=0.0))


def _require_finite(expected: np.ndarray, name: str) -> None:
    if not np.isfinite(expected).all():
        raise RuntimeError(
            f"Verification: output '{name}' of the original model is not finite on random "
            f"inputs ({np.count_nonzero(~np.isfinite(expected))} of {expected.size} values), so "
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
    worst = max(TOLERANCE.get(dtype, TOLERANCE["float32"]) for dtype in dtypes)
    return worst * (10 if len(model.layers) > DEEP else 1)
