"""Moving statistics keep up with a short training, and momentum comes back."""

from __future__ import annotations

import keras
import pytest

from keras_sbp.compression.statistics import keeping_up


@pytest.fixture
def model():
    norms = [keras.layers.BatchNormalization(momentum=each) for each in (0.99, 0.5)]
    return keras.Sequential([keras.Input((4,)), *norms, keras.layers.LayerNormalization()])


@pytest.mark.parametrize(
    ("steps", "epochs", "momentum"), [(100, 1, 0.9), (1, 1, 0.5), (9999, 9, 0.99)]
)
def test_momentum(model, steps, epochs, momentum):
    with keeping_up(model, steps, epochs):
        assert model.layers[0].momentum == pytest.approx(momentum)
        assert model.layers[1].momentum == 0.5
    assert [each.momentum for each in model.layers[:2]] == [0.99, 0.5]


def test_unknown_number_of_steps(model):
    with keeping_up(model, None, 2):
        assert model.layers[0].momentum == 0.99


def test_comes_back_after_a_failure(model):
    with pytest.raises(KeyboardInterrupt), keeping_up(model, 10, 1):
        raise KeyboardInterrupt
    assert model.layers[0].momentum == 0.99
