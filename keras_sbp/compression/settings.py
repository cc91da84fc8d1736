"""What a model is compiled with, once more for another network."""

from __future__ import annotations

from typing import Any

import keras

from keras_sbp._keras import compile_arguments
from keras_sbp._optimizers import leave_out_of_weight_decay
from keras_sbp.layers import find_gates


def compile_like(network: keras.Model, original: keras.Model, *, steps_before: int = 0) -> None:
    """Compiles a network as the original is, with an optimizer and metrics of its own.

    Args:
        network: What is to be trained.
        original: The user's compiled model.
        steps_before: How many steps a schedule of the learning rate has behind it.
    """
    arguments = compile_arguments(original)
    arguments["optimizer"] = fresh(original.optimizer, steps_before)
    for argument in ("metrics", "weighted_metrics"):
        arguments[argument] = keras.tree.map_structure(_metric_again, arguments[argument])
    network.compile(**arguments)


def spare_posteriors(network: keras.Model) -> None:
    """Leaves the posteriors of a compiled network's gates out of weight decay."""
    posteriors = [weight for gate in find_gates(network) for weight in (gate.mu, gate.log_sigma)]
    leave_out_of_weight_decay(network.optimizer, posteriors)


def fresh(
    optimizer: keras.optimizers.Optimizer, steps_before: int = 0
) -> keras.optimizers.Optimizer:
    """Returns an optimizer of the same kind and settings that has taken no step.

    Args:
        optimizer: The user's.
        steps_before: How many steps its schedule, if it has one, has behind it.
    """
    config = optimizer.get_config()
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        config["inner_optimizer"] = fresh(optimizer.inner_optimizer, steps_before)
        return type(optimizer)(**config)
    schedule = config.get("learning_rate")
    if steps_before and isinstance(schedule, dict):
        schedule = keras.optimizers.schedules.deserialize(schedule)
        config["learning_rate"] = Later(schedule, steps_before)
    return type(optimizer).from_config(config)


@keras.saving.register_keras_serializable(package="keras_sbp")
class Later(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of which some steps are over.

    Args:
        schedule: The whole schedule.
        steps: How many of its steps are over.
    """

    def __init__(
        self, schedule: keras.optimizers.schedules.LearningRateSchedule, steps: int
    ) -> None:
        self.schedule, self.steps = schedule, steps

    def __call__(self, step: Any) -> Any:
        """Returns the learning rate."""
        return self.schedule(step + self.steps)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        schedule = keras.optimizers.schedules.serialize(self.schedule)
        return {"schedule": schedule, "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Later:
        """Returns the schedule that `get_config()` described."""
        return cls(keras.optimizers.schedules.deserialize(config["schedule"]), config["steps"])


def _metric_again(metric: Any) -> Any:
    """A metric that shares no state with the original's; names and functions have none."""
    if isinstance(metric, keras.metrics.Metric):
        return type(metric).from_config(metric.get_config())
    return metric
