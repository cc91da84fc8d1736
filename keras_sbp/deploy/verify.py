"""Running an exported file in its own runtime and comparing it with the Keras model."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_sbp.deploy.litert import LiteRTModel
from keras_sbp.deploy.precision import tolerance
from keras_sbp.deploy.signature import random_batches, structured

Runner = Callable[[dict[str, np.ndarray]], Mapping[str, Any]]


def max_abs_error(model: keras.Model, specs: Any, path: str, format: str) -> float:
    """Largest difference between an exported file and its model on random inputs.

    Args:
        model: The Keras model the file was made from.
        specs: Its input specs, from `input_specs`.
        path: The exported file or folder.
        format: `"litert"` or `"saved_model"`.

    Returns:
        max|Δ| over all outputs.

    Raises:
        RuntimeError: If an output differs by more than the tolerance of the model's compute
            dtype times max|y|, or if nothing could be compared.
    """
    run = _litert_runner(path) if format == "litert" else _saved_model_runner(path)
    allowed = tolerance(model)
    expected: dict[str, list[np.ndarray]] = {}
    received: dict[str, list[np.ndarray]] = {}
    for batch in random_batches(specs):
        outputs = run(batch)
        for name, value in _named(model(structured(specs, batch), training=False)).items():
            expected.setdefault(name, []).append(_numpy(value))
            received.setdefault(name, []).append(_numpy(outputs[name]))
    worst = 0.0
    for name in expected:
        error, scale = _difference(name, np.stack(expected[name]), np.stack(received[name]))
        if not error <= allowed * scale:
            raise RuntimeError(
                f"The exported model differs from model '{model.name}' at output '{name}': "
                f"expected max|Δ| <= {allowed:g} * max|y| = {allowed * scale:.3g}, received "
                f"{error:.3g}. No file was written. Pass verify=False to export it anyway."
            )
        worst = max(worst, error)
    return worst


def _difference(name: str, expected: np.ndarray, received: np.ndarray) -> tuple[float, float]:
    if expected.shape != received.shape:
        return np.inf, 1.0
    finite = np.isfinite(expected)
    if not finite.any():
        raise RuntimeError(
            f"Output '{name}' of the model is NaN or infinite on every random input, so there is "
            "nothing to compare the exported file with. Check the model's weights, or pass "
            "verify=False."
        )
    if not np.array_equal(finite, np.isfinite(received)):
        return np.inf, 1.0
    scale = float(np.max(np.abs(expected[finite])))
    return float(np.max(np.abs(expected[finite] - received[finite]))), scale


def _named(outputs: Any) -> dict[str, Any]:
    """Outputs by the names that TensorFlow gives them in a signature."""
    if isinstance(outputs, Mapping):
        return dict(outputs)
    if isinstance(outputs, list | tuple):
        return {f"output_{i}": value for i, value in enumerate(outputs)}
    return {"output_0": outputs}


def _numpy(value: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(value)).astype("float64")


def _litert_runner(path: str) -> Runner:
    return LiteRTModel(path)


def _saved_model_runner(path: str) -> Runner:
    import tensorflow as tf

    loaded = tf.saved_model.load(os.fspath(path))
    serve = loaded.signatures["serving_default"]

    def run(batch: dict[str, np.ndarray]) -> Mapping[str, Any]:
        outputs = serve(**{name: tf.constant(value) for name, value in batch.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    run.loaded = loaded  # The signature holds no reference to the variables it reads.
    return run
