"""SBPLayer at inference and in symbolic calls."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_sbp.layers import SBPLayer, deciding


def spread_posterior(layer):
    """Gives half of the units an SNR far above 1, half far below."""
    alternating = np.arange(layer.units) % 2
    layer.set_posterior(-0.5 * (1 + np.arange(layer.units) / 7), np.where(alternating, 3.0, -2.0))
    keep = layer.keep()
    assert keep.sum() == layer.units - layer.units // 2
    return np.where(keep, layer.posterior.mean(), 0.0)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((5, 6), -1),
        ((5, 6), 1),
        ((5, 3, 6), -1),
        ((5, 6, 3), 1),
        ((5, 6, 3, 3), 1),
        ((5, 6, 3, 3), -3),
        ((5, 3, 3, 6), -1),
        ((5, 3, 2, 2, 6), -1),
    ],
)
def test_multiplies_by_keep_times_mean_along_the_axis(shape, axis):
    layer = SBPLayer(axis=axis)
    layer.build(shape)
    scale = spread_posterior(layer)
    inputs = np.random.default_rng(0).normal(size=shape).astype("float32")
    expected = np.moveaxis(np.moveaxis(inputs, axis, -1) * scale, -1, axis)
    outputs = layer(inputs)
    assert outputs.shape == shape
    np.testing.assert_allclose(ops.convert_to_numpy(outputs), expected, rtol=1e-5, atol=1e-7)
    assert layer.losses == []


@pytest.mark.parametrize("shape", [(5,), (5, 6), (5, 2, 3)])
def test_one_gate_for_the_whole_tensor(shape):
    layer = SBPLayer(axis=None)
    layer.build(shape)
    inputs = np.random.default_rng(0).normal(size=shape).astype("float32")
    layer.set_posterior(-1.0, -3.0)
    kept = ops.convert_to_numpy(layer(inputs))
    np.testing.assert_allclose(kept, inputs * layer.posterior.mean(), rtol=1e-5)
    layer.set_posterior(-10.0, 3.0)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(inputs)), 0.0)


def test_evaluate_scores_the_pruned_function():
    keras.utils.set_random_seed(0)
    gate = SBPLayer(num_samples=10)
    hidden, head = keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(1)
    model = keras.Sequential([keras.Input((4,)), hidden, gate, head])
    model.compile(loss="mse")
    scale = spread_posterior(gate)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(50, 4)), rng.normal(size=(50, 1))
    kernels = [[np.asarray(w, "float64") for w in layer.get_weights()] for layer in (hidden, head)]
    (w1, b1), (w2, b2) = kernels
    outputs = (np.tanh(x @ w1 + b1) * scale) @ w2 + b2
    assert outputs.std() > 0.01
    np.testing.assert_allclose(
        model.evaluate(x, y, verbose=0), np.mean((outputs - y) ** 2), rtol=1e-5
    )
    np.testing.assert_allclose(model.predict(x, verbose=0), outputs, rtol=1e-4, atol=1e-5)


def test_deciding_replaces_the_rule_inside_its_block_only():
    first, second = SBPLayer(), SBPLayer()
    inputs = np.ones((2, 3), "float32")

    def outputs():
        return [ops.convert_to_numpy(layer(inputs))[0] > 0 for layer in (first, second)]

    outputs()
    no, yes = np.array([True, False, False]), np.array([True, True, True])
    with deciding({first: no}):
        np.testing.assert_array_equal(outputs(), [no, yes])
        with deciding({second: no}):
            np.testing.assert_array_equal(outputs(), [no, no])
            with deciding({first: yes}):
                np.testing.assert_array_equal(outputs(), [yes, no])
        np.testing.assert_array_equal(outputs(), [no, yes])
    np.testing.assert_array_equal(outputs(), [yes, yes])


def test_deciding_ends_also_when_its_block_raises():
    layer = SBPLayer()
    layer.build((None, 2))
    with pytest.raises(KeyError), deciding({layer: np.zeros(2, bool)}):
        raise KeyError
    assert ops.convert_to_numpy(layer(np.ones((1, 2)))).min() > 0


@pytest.mark.parametrize("keep", [np.ones(3, bool), np.ones(2), np.ones((2, 1), bool)])
def test_deciding_refuses_arrays_that_do_not_fit(keep):
    layer = SBPLayer(name="gate_7")
    layer.build((None, 2))
    with pytest.raises(ValueError, match="gate_7"), deciding({layer: keep}):
        pass


@pytest.mark.parametrize(
    ("policy", "weights", "outputs"),
    [
        ("float32", "float32", "float32"),
        ("mixed_float16", "float32", "float16"),
        ("mixed_bfloat16", "float32", "bfloat16"),
        ("float16", "float32", "float16"),
        ("bfloat16", "float32", "bfloat16"),
    ],
)
def test_gate_arithmetic_is_float32_whatever_the_compute_dtype(policy, weights, outputs):
    layer = SBPLayer(dtype=policy)
    result = layer(np.ones((2, 3)))
    assert {w.dtype for w in (layer.mu, layer.log_sigma)} == {weights}
    assert keras.backend.standardize_dtype(result.dtype) == outputs
    # log sigma = -20 squares to 4e-18, which float16 does not hold.
    layer.set_posterior(-1.0, -20.0)
    np.testing.assert_allclose(
        ops.convert_to_numpy(layer(np.ones((1, 3)))).astype("float32"), np.exp(-1), rtol=1e-2
    )


def test_integer_features_can_be_gated():
    layer = SBPLayer()
    result = layer(np.arange(6).reshape(2, 3))
    assert keras.backend.standardize_dtype(result.dtype) == "float32"
    np.testing.assert_allclose(result, np.arange(6).reshape(2, 3), rtol=0.02)


def test_keras_masks_pass_through():
    inputs = keras.Input((None,), dtype="int32")
    embedded = keras.layers.Embedding(5, 4, mask_zero=True)(inputs)
    outputs = keras.layers.LSTM(3)(SBPLayer()(embedded))
    model = keras.Model(inputs, outputs)
    np.testing.assert_allclose(
        model.predict(np.array([[1, 2, 0, 0]]), verbose=0),
        model.predict(np.array([[1, 2]]), verbose=0),
        rtol=1e-5,
    )


def test_symbolic_calls_need_no_num_samples_even_for_training():
    inputs = keras.Input((None, 4))
    outputs = SBPLayer()(inputs, training=True)
    assert outputs.shape == (None, None, 4)
    assert SBPLayer().compute_output_shape((2, 3)) == (2, 3)


def test_refuses_inputs_with_another_number_of_units():
    layer = SBPLayer(name="gate_7")
    layer(np.ones((2, 3)))
    with pytest.raises(ValueError, match="gate_7"):
        layer(np.ones((2, 4)))
