"""One line says what matters of a gate, in every state that it can be in."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_sbp.layers import SBPLayer


def _built(**kwargs) -> SBPLayer:
    gate = SBPLayer(name="gate", num_samples=10, **kwargs)
    gate.build((None, 4))
    return gate


def test_repr_says_what_stays() -> None:
    gate = _built()
    gate.set_posterior(0.0, [-3.0, -3.0, 3.0, -3.0])
    gate.freeze([True, False, True, True])
    median = np.median(gate.snr())
    text = f"<SBPLayer name=gate, keeps 2 of 4 units, 2 frozen, median SNR {median:.3g}>"
    gate.freeze()
    assert repr(gate) == str(gate) == text


def test_repr_before_it_is_built_and_before_it_is_constructed() -> None:
    assert repr(SBPLayer(name="gate")) == "<SBPLayer name=gate, not built>"
    assert "SBPLayer" in repr(SBPLayer.__new__(SBPLayer))


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_repr_of_a_diverged_posterior(value) -> None:
    gate = _built()
    gate.mu.assign([0.0, value, 0.0, value])
    gate.log_sigma.assign([0.0, -value, 0.0, 0.0])
    assert repr(gate) == "<SBPLayer name=gate, 4 units, NaN or Inf in 2 of them>"


def test_repr_with_a_rule_that_fails() -> None:
    class Broken:
        def keep(self, posterior):
            raise KeyError("threshold")

    gate = _built()
    gate.rule = Broken()
    assert repr(gate) == "<SBPLayer name=gate, 4 units>"


def test_repr_while_it_is_traced_and_trained() -> None:
    seen = []

    @keras.saving.register_keras_serializable("test_sbp_repr")
    class Asking(keras.layers.Layer):
        def __init__(self, gate, **kwargs):
            super().__init__(**kwargs)
            self.gate = gate

        def call(self, x, training=False):
            x = self.gate(x, training=training)
            seen.append(repr(self.gate))
            return x

    class InHooks(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(repr(gate))

    gate = SBPLayer(name="gate", num_samples=10)
    model = keras.Sequential([keras.Input((4,)), Asking(gate)])
    model.compile("adam", "mse")
    x = np.ones((8, 4), "float32")
    model.fit(x, x, batch_size=4, epochs=2, verbose=0, callbacks=[InHooks()])
    assert len(seen) > 5
    assert all(text.startswith("<SBPLayer name=gate, ") for text in seen)
    assert repr(gate).startswith("<SBPLayer name=gate, keeps 4 of 4 units")
