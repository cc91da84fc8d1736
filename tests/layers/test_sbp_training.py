"""SBPLayer in training: noise, KL, learning rates, and that it learns at all."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_sbp.distributions import TruncatedLogNormal
from keras_sbp.layers import SBPLayer

pytestmark = pytest.mark.usefixtures("optimizers_built_first")


def no_data_loss(y_true, y_pred):
    return 0.0 * ops.mean(y_pred, axis=-1)


def train_with(gate, *, shape=(4,), loss=no_data_loss, optimizer="sgd", samples=6):
    model = keras.Sequential([keras.Input(shape), gate, keras.layers.Flatten()])
    model.compile(optimizer, loss)
    x = np.ones((samples, *shape), "float32")
    return model, x, np.zeros((samples, int(np.prod(shape))), "float32")


def noise_of(gate, shape):
    """Returns theta of one training call on ones, and of the next."""
    ones = np.ones(shape, "float32")
    return [ops.convert_to_numpy(gate(ones, training=True)) for _ in range(2)]


def wide_gate(shape, **arguments):
    gate = SBPLayer(num_samples=10, mu_initializer=-1.0, log_sigma_initializer=0.0, **arguments)
    gate.build(shape)
    return gate


def test_noise_is_drawn_per_example_and_unit_and_shared_over_other_axes():
    theta, other = noise_of(wide_gate((8, 3, 5)), (8, 3, 5))
    np.testing.assert_array_equal(theta, np.broadcast_to(theta[:, :1], theta.shape))
    assert len(np.unique(theta)) == 8 * 5
    assert not np.intersect1d(theta, other).size


def test_noise_per_batch_is_shared_over_examples():
    theta, other = noise_of(wide_gate((8, 3, 5), noise="batch"), (8, 3, 5))
    np.testing.assert_array_equal(theta, np.broadcast_to(theta[:1, :1], theta.shape))
    assert len(np.unique(theta)) == 5
    assert not np.intersect1d(theta, other).size


@pytest.mark.parametrize(("noise", "draws"), [("example", 8), ("batch", 1)])
def test_one_gate_for_the_whole_tensor_draws_one_theta(noise, draws):
    theta, _ = noise_of(wide_gate((8, 3, 5), axis=None, noise=noise), (8, 3, 5))
    np.testing.assert_array_equal(theta, np.broadcast_to(theta[:, :1, :1], theta.shape))
    assert len(np.unique(theta)) == draws


def test_noise_along_a_middle_axis():
    theta, _ = noise_of(wide_gate((8, 5, 3), axis=1), (8, 5, 3))
    np.testing.assert_array_equal(theta, np.broadcast_to(theta[:, :, :1], theta.shape))
    assert len(np.unique(theta)) == 8 * 5


def test_noise_has_the_posteriors_moments():
    gate = wide_gate((20000, 2))
    gate.set_posterior([-1.0, -3.0], [0.0, -1.0])
    theta, _ = noise_of(gate, (20000, 2))
    deviation = np.sqrt(gate.posterior.variance())
    np.testing.assert_allclose(theta.mean(0), gate.posterior.mean(), atol=5 * deviation.max() / 141)
    np.testing.assert_allclose(theta.std(0), deviation, rtol=0.05)


def test_seeds_repeat_the_noise():
    first, second, other = (noise_of(wide_gate((4, 3), seed=s), (4, 3))[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def kl_of_step(gate, samples=6):
    """Returns what a training call adds to the losses."""
    gate(np.ones((samples, 4), "float32"), training=True)
    (loss,) = gate.losses
    return float(loss)


def test_the_kl_in_the_loss_is_that_of_a_float64_computation():
    gate = SBPLayer(num_samples=500, kl_weight=0.7)
    model, x, y = train_with(gate, optimizer=keras.optimizers.SGD(0.0))
    mu, log_sigma = np.array([-3.0, 0.5, -19.0, 4.0]), np.array([-5.0, -1.0, 2.0, 0.3])
    gate.set_posterior(mu, log_sigma)
    expected = 0.7 * TruncatedLogNormal(mu, log_sigma).kl_to_log_uniform().sum() / 500
    np.testing.assert_allclose(gate.kl_loss(), expected, rtol=1e-6)
    np.testing.assert_allclose(model.train_on_batch(x, y), expected, rtol=1e-5)
    gate.kl_factor.assign(0.25)
    np.testing.assert_allclose(model.train_on_batch(x, y), 0.25 * expected, rtol=1e-5)
    assert model.test_on_batch(x, y) == 0.0


def test_a_gate_that_is_not_trainable_draws_noise_and_leaves_a_constant_kl():
    gate = wide_gate((8, 4))
    gate.trainable = False
    model, x, y = train_with(gate, samples=8)
    before = gate.posterior
    history = model.fit(x, y, epochs=2, batch_size=8, verbose=0)
    np.testing.assert_array_equal(gate.posterior.mu, before.mu)
    np.testing.assert_array_equal(gate.posterior.log_sigma, before.log_sigma)
    np.testing.assert_allclose(history.history["loss"], 2 * [gate.kl_loss()], rtol=1e-5)
    assert len(np.unique(noise_of(gate, (8, 4))[0])) == 8 * 4


def test_without_num_samples_the_kl_is_divided_by_batch_times_steps_times_replicas():
    gate = SBPLayer()
    gate.set_steps_per_epoch(7, replicas=2)
    np.testing.assert_allclose(kl_of_step(gate, samples=6), gate.kl() / (6 * 7 * 2), rtol=1e-5)
    np.testing.assert_allclose(gate.kl_loss(), gate.kl() / (6 * 7 * 2), rtol=1e-6)


def test_a_small_last_batch_does_not_count_the_kl_many_times():
    gate = SBPLayer()
    gate.set_steps_per_epoch(2)
    full = kl_of_step(gate, samples=6)
    np.testing.assert_allclose(kl_of_step(gate, samples=1), full, rtol=1e-6)
    gate.set_steps_per_epoch(12)
    np.testing.assert_allclose(kl_of_step(gate, samples=1), full, rtol=1e-6)


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ([2, 6, 6, 6, 6], [10, 26, 26, 26, 26]),
        ([6, 2, 6, 6, 6], [30, 30, 30, 30, 30]),
        ([6, 6, 6, 6, 2], [30, 30, 30, 30, 30]),
        ([2, 4, 6, 6, 6], [10, 18, 24, 24, 24]),
    ],
)
def test_the_samples_grow_with_the_batches_and_are_exact_from_the_second_epoch_on(
    batches, expected
):
    gate = SBPLayer()
    gate.set_steps_per_epoch(len(batches))
    found = [kl_of_step(gate, samples) for samples in [*batches, 2, 6, 30]]
    exact = [sum(batches)] * 3
    np.testing.assert_allclose(gate.kl() / np.array(found), expected + exact, rtol=1e-5)


def test_the_samples_of_many_steps_are_exact_in_float32():
    gate = SBPLayer()
    gate.set_steps_per_epoch(2**22)
    for samples in (7, 1, 7):
        last = kl_of_step(gate, samples)
    np.testing.assert_allclose(gate.kl() / last, 7 * 2**22, rtol=1e-5)


def test_unknown_steps_give_the_kl_weight_zero_and_finite_gradients():
    gate = SBPLayer()
    model, x, y = train_with(gate, optimizer="adam")
    gate.set_steps_per_epoch(None)
    assert model.train_on_batch(x, y) == 0.0
    assert gate.kl_loss() == 0.0
    gate.check_posterior()
    gate.set_steps_per_epoch(10)
    assert model.train_on_batch(x, y) > 0.0


def test_training_without_any_number_of_samples_is_an_error_naming_both_fixes():
    gate = SBPLayer(name="gate_7")
    with pytest.raises(RuntimeError, match="num_samples") as error:
        gate(np.ones((2, 3)), training=True)
    assert "gate_7" in str(error.value)
    assert "SNRMonitor" in str(error.value)
    model, x, y = train_with(SBPLayer(name="gate_8"))
    with pytest.raises(RuntimeError, match="gate_8"):
        model.fit(x, y, verbose=0)


def test_a_gate_used_twice_adds_its_kl_once_per_forward_pass():
    gate = SBPLayer(num_samples=10)
    inputs = keras.Input((4,))
    branch = keras.layers.Dense(4)(gate(inputs))
    outputs = gate(branch)
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.0), no_data_loss)
    x = np.ones((6, 4), "float32")
    for _ in range(2):
        np.testing.assert_allclose(model.train_on_batch(x, x), gate.kl() / 10, rtol=1e-5)
        model(x, training=True)
        assert len(model.losses) == 1


def test_gates_at_several_depths_each_add_their_kl():
    gates = [SBPLayer(num_samples=10) for _ in range(3)]
    inner = keras.Sequential([keras.Input((4,)), gates[0], keras.layers.Dense(4), gates[1]])
    model = keras.Sequential([keras.Input((4,)), inner, gates[2]])
    model(np.ones((6, 4)), training=True)
    expected = sum(gate.kl() for gate in gates) / 10
    np.testing.assert_allclose(sum(float(loss) for loss in model.losses), expected, rtol=1e-5)


@pytest.mark.parametrize("optimizer", [keras.optimizers.SGD, keras.optimizers.Adam])
def test_the_multiplier_is_exact_under_any_optimizer(optimizer):
    slow, fast = (
        SBPLayer(
            num_samples=2.0,
            mu_initializer=-1.0,
            log_sigma_initializer=-1.0,
            learning_rate_multiplier=multiplier,
            seed=3,
        )
        for multiplier in (1.0, 10.0)
    )
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [slow(inputs), fast(inputs)])
    model.compile(optimizer(1e-3), ["mse", "mse"])
    x = np.ones((6, 4), "float32")
    model.train_on_batch(x, [0 * x, 0 * x])
    moved = [
        np.stack([gate.posterior.mu + 1, gate.posterior.log_sigma + 1]) for gate in (slow, fast)
    ]
    assert np.abs(moved[0]).min() > 1e-5
    np.testing.assert_allclose(moved[1] / moved[0], 10.0, rtol=2e-2)
    if optimizer is keras.optimizers.Adam:
        np.testing.assert_allclose(np.abs(moved[1]), 1e-2, rtol=1e-2)


def test_the_optimizer_keeps_the_parameters_in_range_without_stranding_them():
    gate = SBPLayer(num_samples=10)
    model, x, y = train_with(gate, optimizer=keras.optimizers.SGD(0.0))
    gate.set_posterior([-30.0, 9.0, -1.0, 0.0], [6.0, -25.0, -1.0, 0.0])
    model.train_on_batch(x, y)
    np.testing.assert_allclose(gate.posterior.mu, [-20, 5, -1, 0], rtol=1e-6)
    np.testing.assert_allclose(gate.posterior.log_sigma, [5, -20, -1, 0], rtol=1e-6)


def test_a_unit_that_was_given_up_comes_back_when_the_data_need_it():
    gate = SBPLayer(num_samples=1e6, seed=0)
    model = keras.Sequential([keras.Input((1,)), gate])
    model.compile(keras.optimizers.Adam(0.02), "mse")
    # Outside the range on both counts: the first step projects it to the corner.
    gate.set_posterior(-40.0, 8.0)
    x = np.ones((64 * 600, 1), "float32")
    assert float(gate(x[:1])[0, 0]) == 0.0
    model.fit(x, x, epochs=1, batch_size=64, verbose=0)
    gate.check_posterior()
    assert gate.keep().all()
    assert abs(gate.posterior.mean()[0] - 1) < 0.1


def test_gates_find_the_two_features_that_matter():
    """With the defaults and Adam at 1e-3, in some tens of epochs."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 8)).astype("float32")
    y = (x[:, :1] + x[:, 1:2] > 0).astype("float32")
    features, hidden = SBPLayer(num_samples=500, seed=0), SBPLayer(num_samples=500, seed=1)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            features,
            keras.layers.Dense(32, activation="relu"),
            hidden,
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
    model.fit(x, y, epochs=20, batch_size=10, verbose=0)
    np.testing.assert_array_equal(features.keep(), [True] * 2 + [False] * 6)
    assert 1 <= hidden.keep().sum() <= 24
    assert np.mean((ops.convert_to_numpy(model(x)) > 0.5) == y) > 0.97
