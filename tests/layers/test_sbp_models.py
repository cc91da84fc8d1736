"""SBPLayer in every kind of model, behind every kind of layer, and in every kind of loop."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_sbp.layers import SBPLayer

N = 8

pytestmark = pytest.mark.usefixtures("optimizers_built_first")


def gate(**arguments):
    return SBPLayer(num_samples=N, **arguments)


def sequential():
    return keras.Sequential([keras.Input((6,)), layers.Dense(5), gate(), layers.Dense(2)])


def lazy_sequential():
    return keras.Sequential([layers.Dense(5), gate(), layers.Dense(2)])


def functional_shared():
    inputs = keras.Input((6,))
    shared = gate()
    first = shared(layers.Dense(5)(inputs))
    second = shared(layers.Dense(5)(first))
    return keras.Model(inputs, layers.Dense(2)(layers.add([first, second])))


def nested():
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(5), gate()])
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(2)(inner(inputs)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.gate, self.head = layers.Dense(5), gate(), layers.Dense(2)

    # Keras says training=True only to models that ask for it, and under JAX not to their layers.
    def call(self, inputs, training=False):
        return self.head(self.gate(self.hidden(inputs), training=training))


def input_features():
    return keras.Sequential([keras.Input((6,)), gate(), layers.Dense(2)])


def whole_branch():
    inputs = keras.Input((6,))
    branch = gate(axis=None)(layers.Dense(6)(inputs))
    return keras.Model(inputs, layers.Dense(2)(layers.add([inputs, branch])))


def convolutional(rank):
    conv = (layers.Conv1D, layers.Conv2D, layers.Conv3D)[rank - 1]
    pool = (layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D)
    top = [layers.Flatten()] if rank == 3 else [pool[rank - 1]()]
    shape = (4,) * rank + (2,)
    return keras.Sequential(
        [keras.Input(shape), conv(3, 2), layers.ReLU(), gate(), *top, layers.Dense(2)]
    )


def channels_first_units():
    """The unit axis is 1; Dense acts on the last one, so it trains on any device."""
    return keras.Sequential(
        [keras.Input((3, 6)), layers.Dense(4), gate(axis=1), layers.Flatten(), layers.Dense(2)]
    )


MODELS = {
    "sequential": (sequential, (6,)),
    "lazy_sequential": (lazy_sequential, (6,)),
    "functional_shared": (functional_shared, (6,)),
    "nested": (nested, (6,)),
    "subclassed": (Subclassed, (6,)),
    "input_features": (input_features, (6,)),
    "whole_branch": (whole_branch, (6,)),
    "conv1d": (lambda: convolutional(1), (4, 2)),
    "conv2d": (lambda: convolutional(2), (4, 4, 2)),
    "conv3d": (lambda: convolutional(3), (4, 4, 4, 2)),
    "channels_first_units": (channels_first_units, (3, 6)),
}


def find_gate(model):
    found = [layer for layer in model._flatten_layers() if isinstance(layer, SBPLayer)]
    assert len(found) == 1
    return found[0]


def data(shape):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, *shape)).astype("float32")
    return x, rng.normal(size=(N, 2)).astype("float32")


@pytest.mark.parametrize("name", MODELS)
def test_trains_under_fit(name):
    make, shape = MODELS[name]
    keras.utils.set_random_seed(0)
    model = make()
    model.compile("adam", "mse")
    x, y = data(shape)
    losses = model.fit(x, y, batch_size=4, epochs=2, verbose=0).history["loss"]
    trained = find_gate(model)
    kl = trained.kl() / N
    # Two steps of each epoch carry the KL, and it has hardly moved.
    assert np.isfinite(losses).all()
    assert min(losses) > 0.9 * kl > 0.1
    assert np.abs(trained.posterior.log_sigma + 5).min() > 1e-3


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_trains_under_dtype_policies(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = sequential()
        model.compile("adam", "mse")
        x, y = data((6,))
        losses = model.fit(x, y, batch_size=4, epochs=2, verbose=0).history["loss"]
        trained = find_gate(model)
        assert np.isfinite(losses).all()
        assert min(losses) > 0.9 * trained.kl() / N
        assert np.abs(trained.posterior.log_sigma + 5).min() > 1e-3
        assert trained.dtype_policy.name == policy
    finally:
        keras.config.set_dtype_policy(before)


def test_train_on_batch_moves_the_gate():
    model = sequential()
    model.compile("adam", "mse")
    x, y = data((6,))
    losses = [float(model.train_on_batch(x, y)) for _ in range(5)]
    assert np.isfinite(losses).all()
    assert np.abs(find_gate(model).posterior.log_sigma + 5).min() > 1e-3


def test_a_frozen_gate_does_not_move():
    model = sequential()
    find_gate(model).trainable = False
    model.compile("adam", "mse")
    model.fit(*data((6,)), verbose=0)
    np.testing.assert_array_equal(find_gate(model).posterior.log_sigma, -5.0)


def custom_step_tensorflow(model, optimizer):
    import tensorflow as tf

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            data_loss = ops.mean(ops.square(model(x, training=True) - y))
            kl = ops.sum(ops.stack(model.losses))
            loss = data_loss + kl
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss, kl

    return step


def custom_step_jax(model, optimizer):
    import jax

    def compute_loss(trainable, other, x, y):
        outputs, other, losses = model.stateless_call(
            trainable, other, x, training=True, return_losses=True
        )
        kl = ops.sum(ops.stack(losses))
        return ops.mean(ops.square(outputs - y)) + kl, (kl, other)

    compute_gradients = jax.jit(jax.value_and_grad(compute_loss, has_aux=True))
    optimizer.build(model.trainable_variables)

    def step(x, y):
        trainable = [v.value for v in model.trainable_variables]
        other = [v.value for v in model.non_trainable_variables]
        (loss, (kl, other)), gradients = compute_gradients(trainable, other, x, y)
        optimizer.apply(gradients, model.trainable_variables)
        for variable, value in zip(model.non_trainable_variables, other, strict=True):
            variable.assign(value)
        return loss, kl

    return step


@pytest.mark.parametrize(("make", "num_samples"), [(sequential, None), (functional_shared, N)])
def test_trains_in_a_custom_loop(make, num_samples):
    model = make()
    trained = find_gate(model)
    trained.num_samples = num_samples
    if num_samples is None:
        trained.set_steps_per_epoch(2)
    x, y = data((6,))
    makers = {"tensorflow": custom_step_tensorflow, "jax": custom_step_jax}
    step = makers[keras.backend.backend()](model, keras.optimizers.Adam(1e-3))
    expected = trained.kl() / N
    loss, kl = step(x[: N // 2], y[: N // 2])
    np.testing.assert_allclose(float(kl), expected, rtol=1e-5)
    seed = ops.convert_to_numpy(trained.seed_generator.state.value)
    for _ in range(4):
        loss, kl = step(x[: N // 2], y[: N // 2])
    assert np.isfinite(float(loss))
    np.testing.assert_allclose(trained.kl_loss(), trained.kl() / N, rtol=1e-5)
    assert not np.array_equal(seed, ops.convert_to_numpy(trained.seed_generator.state.value))
    assert np.abs(trained.posterior.log_sigma + 5).min() > 1e-3
