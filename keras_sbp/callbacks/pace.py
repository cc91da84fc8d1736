"""How far an optimizer can move weights in the training that is to come."""

from __future__ import annotations

import math
from typing import Any

import keras

from keras_sbp._optimizers import learning_rate_at

# They divide the gradient by its size: a weight with a steady gradient moves by the learning rate.
_NORMALISE = tuple(
    getattr(keras.optimizers, name)
    for name in ("Adam", "Adamax", "Nadam", "RMSprop", "Lion", "ScheduleFreeAdamW")
    if hasattr(keras.optimizers, name)
)
_DO_NOT = (keras.optimizers.SGD, keras.optimizers.Adagrad, keras.optimizers.Ftrl)
# A schedule is asked at so many places, and no further than so many times the run.
_SAMPLES = 64
_LONGEST = 1000


class Pace:
    """What the optimizer of a model can do per epoch.

    Args:
        optimizer: The model's optimizer, or None.
        steps: See below.

    Attributes:
        steps: Training steps per epoch, None while they are not known.
        name: Class of the optimizer, for messages.
        normalises: Whether it divides gradients by their size, as Adam does, so that a weight moves
            by about the learning rate in each step; None if that is not known.
    """

    def __init__(self, optimizer: Any, steps: int | None) -> None:
        # Under mixed_float16 Keras wraps the user's optimizer.
        self._optimizer = inner = getattr(optimizer, "inner_optimizer", optimizer)
        self.name = type(inner).__name__
        self.normalises = (
            True if isinstance(inner, _NORMALISE) else False if isinstance(inner, _DO_NOT) else None
        )
        self.steps = steps
        self._steps_per_update = getattr(inner, "gradient_accumulation_steps", None) or 1

    def updates(self, epochs: int) -> int:
        """Returns how often the weights are updated in so many epochs; 0 if that is unknown."""
        return epochs * (self.steps or 0) // self._steps_per_update

    def reach(self, epochs: int) -> float:
        """Returns the sum of the learning rates of the epochs to come."""
        updates = self.updates(epochs)
        places = [int(updates * (number + 0.5) / _SAMPLES) for number in range(_SAMPLES)]
        return updates * sum(learning_rate_at(self._optimizer, at) for at in places) / _SAMPLES

    def reach_by_gradient(self, epochs: int, gradient: float) -> float:
        """Returns how far SGD moves a weight whose gradient is always this one."""
        momentum = getattr(self._optimizer, "momentum", 0.0) or 0.0
        return self.reach(epochs) * gradient / (1.0 - momentum)

    def epochs_for(self, distance: float, epochs: int) -> int | None:
        """Returns how many epochs reach so far, at least `epochs`; None if far more do not."""
        low, high = epochs, epochs
        while self.reach(high) < distance:
            low, high = high, 2 * high
            if high > _LONGEST * epochs:
                return None
        while high - low > max(1, low // 100):
            middle = (low + high) // 2
            low, high = (low, middle) if self.reach(middle) >= distance else (middle, high)
        return math.ceil(high)
