"""Everything this package reads from private attributes of Keras's optimizers, in one place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras


def learning_rate_at(optimizer: keras.optimizers.Optimizer, update: int) -> float:
    """Returns the learning rate of a coming update, counted from the one that is next."""
    rate = optimizer._learning_rate
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        rate = rate(int(optimizer.iterations) + update)
        return float(keras.ops.convert_to_numpy(rate))
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def leave_out_of_weight_decay(
    optimizer: keras.optimizers.Optimizer, variables: Iterable[keras.Variable]
) -> bool:
    """Has an optimizer no longer decay some variables, beside those that it leaves out already.

    Returns whether it decays any.

    `exclude_from_weight_decay()` would forget what the user has left out, and refuses an optimizer
    that is built. The optimizer inside a `LossScaleOptimizer` is the one that decays.
    """
    optimizer = inner_optimizers(optimizer)[-1]
    if getattr(optimizer, "weight_decay", None) is None:
        return False
    keys = {optimizer._var_key(variable) for variable in variables}
    excluded: set[Any] = getattr(optimizer, "_exclude_from_weight_decay", set())
    optimizer._exclude_from_weight_decay = excluded | keys
    optimizer._exclude_from_weight_decay_cache = {}
    return True


def inner_optimizers(
    optimizer: keras.optimizers.Optimizer,
) -> list[keras.optimizers.Optimizer]:
    """Returns an optimizer, and the one inside of a `LossScaleOptimizer`."""
    found = [optimizer]
    while hasattr(found[-1], "inner_optimizer"):
        found.append(found[-1].inner_optimizer)
    return found


def decays(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> bool:
    """Returns whether an optimizer decays a variable, if it decays any."""
    return inner_optimizers(optimizer)[-1]._use_weight_decay(variable)


def slots(optimizer: keras.optimizers.Optimizer) -> dict[str, dict[int, keras.Variable]]:
    """Returns what a built optimizer keeps for each weight: name of the slot → id → variable."""
    weights = optimizer._trainable_variables
    kept = {
        name: value
        for name, value in vars(optimizer).items()
        if isinstance(value, list)
        and name not in ("_variables", "_trainable_variables")
        and len(value) == len(weights)
        and all(isinstance(each, keras.Variable) for each in value)
    }
    return {
        name: {id(weight): each for weight, each in zip(weights, value, strict=True)}
        for name, value in kept.items()
    }


def scalars(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """Returns the counters and rates of an optimizer, which belong to no weight."""
    of_weights = {id(each) for slot in slots(optimizer).values() for each in slot.values()}
    return [each for each in optimizer._variables if id(each) not in of_weights]
