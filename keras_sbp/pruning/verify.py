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
    with deciding(decisions):
        expected = keras.tree.flatten(gated(inputs, training=False))
    received = keras.tree.flatten(small(inputs, training=False))
    worst = 0.0
    for x, y, tensor in zip(expected, received, small.outputs, strict=True):
        worst = max(worst, _difference(_numpy(x), _numpy(y), tensor.name, _tolerance(small)))
    return worst


def _difference(expected: np.ndarray, received: np.ndarray, name: str, tolerance: float) -> float:
    if not np.isfinite(expected).all():
        raise RuntimeError(
            f"Verification: output '{name}' of the original model is not finite on random "
            f"inputs ({np.count_nonzero(~np.isfinite(expected))} of {expected.size} values), so "
            "the pruned model cannot be compared with it. Expected finite outputs. Look for NaN "
            "or infinity in the model's weights, or pass verify=False."
        )
    difference = float(np.abs(expected - received).max(initial=0.0))
    allowed = tolerance * float(np.abs(expected).max(initial=0.0))
    if not difference <= allowed:
        raise RuntimeError(
            f"Verification: output '{name}' of the pruned model differs from the original's by "
            f"{difference:.3g}. Expected at most {allowed:.3g} ({tolerance:g} of the largest "
            "output). The pruned model is not returned. Please report this with the model; "
            "verify=False returns it unchecked."
        )
    return difference


def _tolerance(model: keras.Model) -> float:
    dtypes = {getattr(layer, "compute_dtype", "float32") for layer in model.layers}
    worst = max(TOLERANCE.get(dtype, TOLERANCE["float32"]) for dtype in dtypes)
    return worst * (10 if len(model.layers) > DEEP else 1)


def _numpy(x: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(x).astype(np.float64)
