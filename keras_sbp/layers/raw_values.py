"""How a posterior parameter lives in a weight.

The weight holds `raw = value / multiplier`, and the value is computed so that
its derivative with respect to the raw one is 1. A step of the optimizer then
moves the value `multiplier` times as far as it would without, under SGD and
under Adam alike, and no optimizer has to know.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_sbp")
class Between(keras.constraints.Constraint):
    """Projects a weight into an interval after each step of the optimizer.

    A clip in the forward pass would have gradient zero outside the interval,
    and a unit that got there could never come back. A projection leaves the
    gradient at the border alive.

    Args:
        low: Lower end of the interval, in units of the weight.
        high: Upper end of the interval, in units of the weight.
    """

    def __init__(self, low: float, high: float) -> None:
        self.low = low
        self.high = high

    def __call__(self, w: Any) -> Any:
        """Returns the nearest values inside the interval."""
        return ops.clip(w, self.low, self.high)

    def get_config(self) -> dict[str, float]:
        """Returns the constructor's arguments."""
        return {"low": self.low, "high": self.high}


def from_raw(raw: Any, multiplier: float) -> Any:
    """Returns the value of a raw tensor: `multiplier * raw`, with derivative 1."""
    return raw + ops.stop_gradient((multiplier - 1.0) * raw)


def raw_initializer(initializer: Callable, multiplier: float) -> Callable:
    """Returns an initializer of raw weights from one of values."""

    def initialize(shape, dtype=None):
        return initializer(shape, dtype=dtype) / multiplier

    return initialize


def value_initializer(identifier: Any) -> Callable:
    """Returns a Keras initializer; a number means that constant."""
    if isinstance(identifier, Real) and not isinstance(identifier, bool):
        if not math.isfinite(identifier):
            raise ValueError(
                "SBPLayer cannot start from a value that is not finite. "
                f"Received: initializer={identifier!r}. Pass a finite number or an initializer."
            )
        return keras.initializers.Constant(float(identifier))
    return keras.initializers.get(identifier)
