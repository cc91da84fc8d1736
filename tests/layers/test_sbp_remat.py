"""Gates in models whose activations are recomputed: the same step as without."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import pytest

from keras_sbp.layers import SBPLayer

INPUTS = np.linspace(-1.0, 1.0, 16, dtype="float32").reshape(8, 2)
SCOPES = {
    "full": lambda: keras.RematScope(mode="full"),
    "activations": lambda: keras.RematScope(mode="activations"),
    "larger_than": lambda: keras.RematScope(mode="larger_than", output_size_threshold=1),
    "list_of_layers": lambda: keras.RematScope(mode="list_of_layers", layer_names=["gate"]),
}

pytestmark = pytest.mark.usefixtures("optimizers_built_first")


def after_a_step(scope: contextlib.AbstractContextManager) -> tuple[float, list[np.ndarray]]:
    """Returns the loss and all weights; one gate is shared by two places."""
    keras.utils.set_random_seed(1)
    with scope:
        gate = SBPLayer(num_samples=8, log_sigma_initializer=-1.0, seed=7, name="gate")
    inputs = keras.Input((2,))
    x = gate(keras.layers.Dense(3, activation="tanh", name="first")(inputs))
    x = gate(keras.layers.Dense(3, activation="tanh", name="second")(x))
    outputs = keras.layers.Dense(1, name="last")(x)
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    loss = model.train_on_batch(INPUTS, INPUTS[:, :1])
    return float(loss), [variable.numpy() for variable in model.variables]


@pytest.mark.parametrize("mode", SCOPES)
def test_a_step_in_a_remat_scope_is_the_step_without(mode: str) -> None:
    loss, weights = after_a_step(contextlib.nullcontext())
    recomputed_loss, recomputed = after_a_step(SCOPES[mode]())
    assert recomputed_loss == pytest.approx(loss, rel=1e-5)
    for ours, theirs in zip(recomputed, weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


class Block(keras.layers.Layer):
    """A layer that has a gate inside."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = SBPLayer(num_samples=8)

    def call(self, x, training=None):
        return self.gate(x, training=training)


def block_in_scope() -> keras.Model:
    with keras.RematScope(mode="full"):
        block = Block()
    return keras.Sequential([keras.Input((2,)), block])


def model_in_scope() -> keras.Model:
    with keras.RematScope(mode="full"):
        inputs = keras.Input((2,))
        return keras.Model(inputs, SBPLayer(num_samples=8)(inputs))


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="may follow another gradient there")
@pytest.mark.parametrize("make", [block_in_scope, model_in_scope])
def test_what_holds_a_gate_cannot_be_recomputed(make) -> None:
    """The limit that gates.md names: an error, not another step."""
    with pytest.raises((RuntimeError, ValueError)):
        model = make()
        model.compile("sgd", "mse")
        model.train_on_batch(INPUTS, INPUTS)
