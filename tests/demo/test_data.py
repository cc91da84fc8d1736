"""The data sets of the demonstrations: always the same, or an error that says what is missing."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_sbp.demo import data


@pytest.mark.remedy("Put mnist.npz")
def test_mnist_that_cannot_be_downloaded(mnist_folder, monkeypatch):
    def offline():
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", offline)
    monkeypatch.delenv(data.DATA_VARIABLE, raising=False)
    with pytest.raises(OSError, match="Put mnist.npz"):
        data.mnist(None)
    assert len(data.mnist(str(mnist_folder)).x_test) == 40
    monkeypatch.setenv(data.DATA_VARIABLE, str(mnist_folder))
    assert len(data.mnist(None).x_test) == 40


def test_digits_are_always_split_alike():
    first, second = data.digits(), data.digits()
    assert first.x_train.shape == (1437, 8, 8, 1)
    assert first.x_test.shape == (360, 8, 8, 1)
    assert (first.x_train.min(), first.x_train.max()) == (0.0, 1.0)
    np.testing.assert_array_equal(first.x_test, second.x_test)
    assert set(first.y_test) == set(range(10))
