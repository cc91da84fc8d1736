"""How far a network is from its teacher, in the terms of its own loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_sbp._keras import compiled_losses, functional_view, output_structure

# At this temperature a teacher that is sure still says which classes are alike.
_TEMPERATURE = 2.0
# Losses that take an output of the teacher for a target as it is.
_OF_VALUES = (
    keras.losses.mean_squared_error,
    keras.losses.mean_absolute_error,
    keras.losses.mean_squared_logarithmic_error,
    keras.losses.mean_absolute_percentage_error,
    keras.losses.huber,
    keras.losses.log_cosh,
    keras.losses.cosine_similarity,
)
_OF_CLASSES = (
    keras.losses.categorical_crossentropy,
    keras.losses.sparse_categorical_crossentropy,
)
Distance = Callable[[Any, Any], Any]


def distance_to_teacher(model: keras.Model) -> Distance:
    """Returns a function of the teacher's outputs and the network's, a scalar.

    Each output counts as its loss does. Cross-entropies take the teacher's
    probabilities for targets, those over classes at a temperature of 2. Losses
    of values take the teacher's outputs. For other losses it is the squared
    difference of the outputs, divided by the variance of the teacher's.

    Reference:
        Hinton, Vinyals, Dean (2015), Distilling the Knowledge in a Neural
        Network (https://arxiv.org/abs/1503.02531), section 2.

    Args:
        model: A functional model that is compiled.
    """
    outputs = output_structure(functional_view(model))
    numbers = {id(output): number for number, output in enumerate(keras.tree.flatten(outputs))}
    terms = [
        (numbers[id(output)], _distance(loss), weight)
        for loss, output, weight in compiled_losses(model, outputs)
    ]

    def distance(teacher: Any, student: Any) -> Any:
        flat = [keras.tree.flatten(each) for each in (teacher, student)]
        flat = [[ops.cast(value, keras.config.floatx()) for value in values] for values in flat]
        return sum(
            weight * term(ops.stop_gradient(flat[0][number]), flat[1][number])
            for number, term, weight in terms
        )

    return distance


def _distance(loss: keras.losses.Loss) -> Distance:
    # A loss that was given by its name is a function in a wrapper, and knows no logits.
    function, from_logits = getattr(loss, "fn", None), getattr(loss, "from_logits", False)
    if function in _OF_CLASSES:
        return _between_classes(from_logits, loss.reduction)
    if function is keras.losses.binary_crossentropy:
        return lambda teacher, student: loss(
            ops.sigmoid(teacher) if from_logits else teacher, student
        )
    return loss if function in _OF_VALUES else _squared


def _between_classes(from_logits: bool, reduction: str | None) -> Distance:
    soft = keras.losses.CategoricalCrossentropy(from_logits=True, reduction=reduction)

    def logits(output: Any) -> Any:
        if not from_logits:
            output = ops.log(ops.maximum(output, keras.config.epsilon()))
        return output / _TEMPERATURE

    def divergence(teacher: Any, student: Any) -> Any:
        taught = ops.softmax(logits(teacher))
        # Less the teacher's entropy, so that the network that says the same is at 0. The square
        # makes up for the gradient, which falls with the square of the temperature.
        away = soft(taught, logits(student)) - soft(taught, logits(teacher))
        return _TEMPERATURE**2 * away

    return divergence


def _squared(teacher: Any, student: Any) -> Any:
    variance = ops.maximum(ops.var(teacher), keras.config.epsilon())
    return ops.mean(ops.square(student - teacher)) / variance
