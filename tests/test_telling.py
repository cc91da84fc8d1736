"""Warnings point at the line that the user can change."""

from __future__ import annotations

import inspect
import threading
import warnings

import keras
import numpy as np
import pytest

import keras_sbp
from keras_sbp.telling import warn


def _fit():
    model = keras.Sequential([keras.Input((4,)), keras_sbp.SBPLayer(num_samples=1, kl_weight=1e4)])
    model.compile("sgd", "mse")
    x = np.ones((8, 4), "float32")
    here = inspect.currentframe().f_lineno + 1
    model.fit(x, x, verbose=0, callbacks=[keras_sbp.SNRMonitor()])
    return here


def _hidden_gates():
    @keras.saving.register_keras_serializable("test_telling")
    class Block(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.gate = keras_sbp.SBPLayer()

        def build(self, shape):
            self.gate.build(shape)

        def call(self, x, training=False):
            return self.gate(2 * x if training else x)

    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), Block()])


def _prune():
    model = _hidden_gates()
    here = inspect.currentframe().f_lineno + 1
    keras_sbp.prune(model)
    return here


def _sweep():
    model = _hidden_gates()
    model.compile("sgd", "mse")
    x = np.ones((8, 4), "float32")
    here = inspect.currentframe().f_lineno + 1
    keras_sbp.sweep(model, [keras_sbp.SNRThreshold()], (x, x), verbose=0)
    return here


@pytest.mark.parametrize("calling", [_fit, _prune, _sweep])
def test_a_warning_points_at_the_users_line(calling) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = calling()
    told = [each for each in caught if each.category is UserWarning]
    assert told
    assert {(each.filename, each.lineno) for each in told} == {(__file__, line)}


def test_a_warning_from_a_thread_without_a_line_of_the_users_still_comes() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        thread = threading.Thread(target=warn, args=["careful"])
        thread.start()
        thread.join()
    assert [str(each.message) for each in caught] == ["careful"]


def test_filters_hold_for_the_users_module() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("ignore", module=__name__.replace(".", r"\."))
        warn("careful")
    assert not caught
