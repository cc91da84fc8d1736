"""The distance to a teacher is 0 where a network says the same, and in the terms of its loss."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_sbp.compression.distillation import distance_to_teacher

RNG = np.random.default_rng(0)


def compiled(loss, outputs=1, **options):
    inputs = keras.Input((4,))
    heads = [keras.layers.Dense(3, name=f"head_{n}")(inputs) for n in range(outputs)]
    model = keras.Model(inputs, heads if outputs > 1 else heads[0])
    model.compile("sgd", loss, **options)
    return model


def probabilities():
    values = RNG.uniform(0.1, 0.9, (5, 3))
    return (values / values.sum(-1, keepdims=True)).astype("float32")


LOSSES = {
    **{name: name for name in ("mse", "mae", "huber", "categorical_crossentropy")},
    "sparse_categorical_crossentropy": "sparse_categorical_crossentropy",
    "logits": keras.losses.CategoricalCrossentropy(from_logits=True),
    "summed": keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"),
    "own": lambda y_true, y_pred: ops.mean(ops.square(ops.cast(y_true, y_pred.dtype) - y_pred)),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_is_least_where_both_say_the_same(loss):
    distance = distance_to_teacher(compiled(loss))
    teacher, other = probabilities(), probabilities()
    same, away = (float(distance(teacher, each)) for each in (teacher, other))
    assert same == pytest.approx(0.0, abs=1e-5)
    assert away > 1e-3


@pytest.mark.parametrize("from_logits", [False, True])
def test_binary(from_logits):
    """Least at the teacher's probability, which is its loss's own entropy there."""
    loss = keras.losses.BinaryCrossentropy(from_logits=from_logits)
    distance = distance_to_teacher(compiled(loss))
    teacher = RNG.uniform(0.2, 0.8, (5, 3)).astype("float32")
    at = [float(distance(teacher, teacher + step)) for step in (-0.1, 0.0, 0.1)]
    assert at[1] == min(at)


def test_classes_at_a_temperature():
    """Kullback-Leibler divergence of the softened probabilities, times the squared temperature."""
    logits = [RNG.normal(size=(5, 3)) for _ in range(2)]
    soft = [np.exp(each / 2) / np.exp(each / 2).sum(-1, keepdims=True) for each in logits]
    expected = 4 * (soft[0] * np.log(soft[0] / soft[1])).sum(-1).mean()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert float(distance_to_teacher(compiled(loss))(*logits)) == pytest.approx(expected, rel=1e-4)
    chances = [np.exp(each) / np.exp(each).sum(-1, keepdims=True) for each in logits]
    distance = distance_to_teacher(compiled("sparse_categorical_crossentropy"))
    assert float(distance(*chances)) == pytest.approx(expected, rel=1e-4)


def test_outputs_weigh_as_their_losses():
    model = compiled(["mse", "mse"], outputs=2, loss_weights=[1.0, 3.0])
    zero, one = np.zeros((2, 3), "float32"), np.ones((2, 3), "float32")
    distance = distance_to_teacher(model)
    assert float(distance([zero, zero], [one, zero])) == pytest.approx(1.0)
    assert float(distance([zero, zero], [zero, one])) == pytest.approx(3.0)
