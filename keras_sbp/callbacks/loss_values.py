"""Over how many positions of an example a compiled loss averages.

The evidence lower bound of an example is the sum of the data losses at all its
positions plus KL / N. Keras's losses average over positions, as over the
batch, and so the KL has to be divided by their number too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sbp._keras import compiled_losses, functional_view, output_structure

_BATCH, _POSITIONS = 3, 2
_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class LossValues:
    """What a model's loss does with the values that it is made of.

    Attributes:
        positions: How many values of one example it averages over.
        sums_batch: Whether it adds examples up instead of averaging over them.
        doubt: Why this is not known for certain; "" if it is.
    """

    positions: int = 1
    sums_batch: bool = False
    doubt: str = ""


def loss_values(model: Any) -> LossValues | None:
    """Returns what is known of a model's loss; None before a model knows its outputs."""
    outputs = _outputs(model)
    if outputs is None:
        return None
    try:
        losses = compiled_losses(model, outputs)
    except Exception:  # Keras will say in the first step what it does not like
        losses = []
    found = [_probed(loss, output) for loss, output, _ in losses]
    if all(len(each.shape) < 3 for each in keras.tree.flatten(outputs)):
        return LossValues(sums_batch=bool(found) and all(each.sums_batch for each in found))
    if not found:
        return LossValues(doubt="the model has outputs with positions, and no compiled loss")
    most = max(found, key=lambda each: each.positions)
    if any(each.doubt for each in found):
        return next(each for each in found if each.doubt)
    if len(set(found)) > 1:
        counts = ", ".join(str(each.positions) for each in found)
        return dataclasses.replace(
            most, doubt=f"the losses of its outputs average over different numbers ({counts})"
        )
    return most


def _outputs(model: Any) -> Any:
    """The structure of a model's outputs, as Keras tensors; None if it is not known yet."""
    functional = functional_view(model)
    if functional is not None:
        return output_structure(functional)
    shape = (model.get_build_config() or {}).get("input_shape") if model.built else None
    if shape is None:
        return None
    try:
        return model.compute_output_spec(keras.KerasTensor(shape))
    except Exception:  # whatever a call of the user's own raises on symbolic tensors
        return None


def _probed(loss: Any, output: Any) -> LossValues:
    """Finds out by trial how a loss answers to twice as many examples, or positions."""
    sizes = output.shape[1:-1]
    y_pred = _random((_BATCH, *(_POSITIONS for _ in sizes), output.shape[-1] or 2))
    for y_true in _targets(y_pred):
        try:
            with keras.StatelessScope():  # state of a loss, such as that of its noise, stays
                ratios = [_ratio(loss, y_true, y_pred, axis) for axis in range(1 + len(sizes))]
        except Exception:  # targets of this shape are not for this loss
            continue
        if not all(any(abs(r - known) < _TOLERANCE for known in (1.0, 2.0)) for r in ratios):
            continue
        averaged = [size for size, r in zip(sizes, ratios[1:], strict=True) if r < 1.5]
        if None in averaged:
            doubt = "an output does not say how many positions it has"
            return LossValues(sums_batch=ratios[0] > 1.5, doubt=doubt)
        return LossValues(int(np.prod(averaged)), ratios[0] > 1.5)
    name = getattr(loss, "name", loss)
    return LossValues(doubt=f"loss '{name}' could not be tried" if sizes else "")


def _targets(y_pred: np.ndarray) -> Iterator[np.ndarray]:
    """Targets of the shapes that losses take: that of the prediction, or class numbers."""
    yield _random(y_pred.shape)
    classes = np.arange(y_pred[..., 0].size).reshape(y_pred.shape[:-1]) % y_pred.shape[-1]
    yield classes.astype("int32")
    yield classes[..., None].astype("int32")


def _ratio(loss: Any, y_true: np.ndarray, y_pred: np.ndarray, axis: int) -> float:
    """By what the loss grows if everything is there twice along an axis."""
    once, twice = (
        float(
            ops.convert_to_numpy(
                loss(*(ops.convert_to_tensor(np.concatenate([y] * n, axis)) for y in pair))
            )
        )
        for n, pair in ((1, (y_true, y_pred)), (2, (y_true, y_pred)))
    )
    return twice / once


def _random(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.1, 0.9, shape).astype("float32")
