"""SBPLayer: what it refuses, what it is made of, how it is described."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest

from keras_sbp.distributions import TruncatedLogNormal
from keras_sbp.layers import SBPLayer
from keras_sbp.rules import PosteriorRule, SNRThreshold


@keras.saving.register_keras_serializable(package="test_sbp_arguments")
class EverySecond(PosteriorRule):
    def keep(self, posterior):
        return np.arange(posterior.mu.shape[0]) % 2 == 0


def built(shape=(None, 4), **arguments):
    layer = SBPLayer(**arguments)
    layer.build(shape)
    return layer


def test_the_signature_is_the_promised_one():
    parameters = inspect.signature(SBPLayer.__init__).parameters
    defaults = {name: p.default for name, p in parameters.items() if name not in ("self", "kwargs")}
    assert list(defaults.items()) == [
        ("axis", -1),
        ("num_samples", None),
        ("kl_weight", 1.0),
        ("rule", None),
        ("log_low", -20.0),
        ("log_high", 0.0),
        ("noise", "example"),
        ("learning_rate_multiplier", 10.0),
        ("mu_initializer", "zeros"),
        ("log_sigma_initializer", -5.0),
        ("seed", None),
    ]
    assert SBPLayer().rule.threshold == 1.0
    with pytest.raises(TypeError, match="positional argument"):
        SBPLayer(-1, 100)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"axis": 1.5}, TypeError, "axis=1.5"),
        ({"axis": "channels"}, TypeError, "integer"),
        ({"axis": (1,)}, TypeError, "or None for one gate"),
        ({"axis": True}, TypeError, "axis=True"),
        ({"num_samples": 0}, ValueError, "num_samples=0"),
        ({"num_samples": -5}, ValueError, "num_samples=-5"),
        ({"num_samples": float("nan")}, ValueError, "num_samples"),
        ({"num_samples": "many"}, TypeError, "num_samples='many'"),
        ({"kl_weight": -0.1}, ValueError, "kl_weight=-0.1"),
        ({"kl_weight": float("inf")}, ValueError, "kl_weight"),
        ({"rule": 1.0}, TypeError, "SNRThreshold"),
        ({"rule": SNRThreshold}, TypeError, "rule"),
        ({"log_low": 0.0}, ValueError, "log_low < log_high"),
        ({"log_low": 1.0, "log_high": -1.0}, ValueError, "log_low=1.0, log_high=-1.0"),
        ({"log_low": float("-inf")}, ValueError, "log_low"),
        ({"noise": "unit"}, ValueError, "noise='unit'"),
        ({"learning_rate_multiplier": 0}, ValueError, "learning_rate_multiplier=0"),
        ({"learning_rate_multiplier": -1}, ValueError, "learning_rate_multiplier=-1"),
        ({"log_sigma_initializer": float("nan")}, ValueError, "finite"),
    ],
)
def test_refuses_bad_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        SBPLayer(**arguments)


@pytest.mark.parametrize(
    ("axis", "shape", "words"),
    [
        (-1, (None, 4, None), "number of units"),
        (1, (None, None, 4), "number of units"),
        (3, (None, 4), "axis 3"),
        (-3, (None, 4), "axis -3"),
        (0, (None, 4), "batch axis"),
        (-2, (None, 4), "batch axis"),
        (-1, (None,), "batch axis"),
    ],
)
def test_refuses_a_bad_unit_axis_when_built_and_names_the_layer(axis, shape, words):
    with pytest.raises(ValueError, match=words) as error:
        built(shape, axis=axis, name="gate_7")
    assert "gate_7" in str(error.value)


@pytest.mark.parametrize(
    ("axis", "shape", "units"),
    [(-1, (None, 3, 5), 5), (1, (None, 3, 5), 3), (-2, (None, 3, None), 3), (None, (None, 3), 1)],
)
def test_counts_its_units(axis, shape, units):
    layer = built(shape, axis=axis)
    assert layer.units == units
    assert layer.snr().shape == layer.keep().shape == (units,)


def test_accepts_any_integer_type_as_axis():
    assert SBPLayer(axis=np.int64(1)).axis == 1


@pytest.mark.parametrize("written", [(), []], ids=str)
def test_an_empty_tuple_gates_the_whole_tensor_as_in_files_of_earlier_versions(written):
    config = keras.saving.serialize_keras_object(SBPLayer(axis=None, name="gate_7"))
    config["config"]["axis"] = written
    gate = keras.saving.deserialize_keras_object(config)
    gate.build((None, 3))
    assert (gate.axis, gate.units) == (None, 1)


def test_initial_values_are_values_not_raw_weights():
    layer = built(mu_initializer="ones", log_sigma_initializer=-3.0, learning_rate_multiplier=4.0)
    np.testing.assert_allclose(layer.posterior.mu, 1.0)
    np.testing.assert_allclose(layer.posterior.log_sigma, -3.0)
    np.testing.assert_allclose(layer.mu, 0.25)
    layer = built(mu_initializer=keras.initializers.RandomNormal(stddev=2.0, seed=1))
    assert 0.2 < layer.posterior.mu.std() < 6.0


def test_posterior_is_float64_on_the_host():
    layer = built(log_low=-10.0, log_high=1.0)
    posterior = layer.posterior
    assert isinstance(posterior, TruncatedLogNormal)
    assert (posterior.log_low, posterior.log_high) == (-10.0, 1.0)
    for values in (posterior.mu, posterior.log_sigma, layer.snr()):
        assert isinstance(values, np.ndarray)
        assert values.dtype == np.float64
    assert isinstance(layer.kl(), float)
    np.testing.assert_allclose(layer.kl(), posterior.kl_to_log_uniform().sum())


@pytest.mark.parametrize("multiplier", [1.0, 10.0, 0.3])
def test_set_posterior_writes_values_whatever_the_multiplier(multiplier):
    layer = built(learning_rate_multiplier=multiplier)
    layer.set_posterior([-1.0, -2.0, 0.5, 3.0], -4.0)
    np.testing.assert_allclose(layer.posterior.mu, [-1.0, -2.0, 0.5, 3.0], rtol=1e-6)
    np.testing.assert_allclose(layer.posterior.log_sigma, -4.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("mu", "log_sigma", "words"),
    [
        (np.zeros(3), 0.0, r"shape \(3,\)"),
        (0.0, np.zeros((4, 1)), r"shape \(4, 1\)"),
        ([0, np.nan, 0, np.inf], 0.0, "2 of 4"),
        (0.0, -np.inf, "log_sigma"),
    ],
)
def test_set_posterior_refuses_bad_values_and_writes_nothing(mu, log_sigma, words):
    layer = built(name="gate_7")
    with pytest.raises(ValueError, match=words) as error:
        layer.set_posterior(mu, log_sigma)
    assert "gate_7" in str(error.value)
    np.testing.assert_array_equal(layer.posterior.mu, 0.0)


def test_check_posterior_names_the_layer_and_counts_units():
    layer = built(name="gate_7")
    layer.check_posterior()
    layer.mu.assign([0.0, np.nan, 0.0, np.inf])
    layer.log_sigma.assign([0.0, np.nan, np.nan, 0.0])
    with pytest.raises(ValueError, match="'gate_7' has NaN or Inf .* 3 of its 4 units"):
        layer.check_posterior()


@pytest.mark.parametrize(
    "use",
    [
        lambda layer: layer.posterior,
        lambda layer: layer.units,
        lambda layer: layer.keep(),
        lambda layer: layer.kl(),
        lambda layer: layer.check_posterior(),
        lambda layer: layer.set_posterior(0.0, 0.0),
    ],
)
def test_an_unbuilt_layer_says_so(use):
    with pytest.raises(ValueError, match="'gate_7' has no posterior yet"):
        use(SBPLayer(name="gate_7"))


@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
def test_refuses_bad_steps_per_epoch(steps):
    with pytest.raises((TypeError, ValueError), match="positive integer"):
        SBPLayer().set_steps_per_epoch(steps)
    with pytest.raises((TypeError, ValueError), match="replicas"):
        SBPLayer().set_steps_per_epoch(1, steps)


def test_config_round_trips_complete():
    layer = SBPLayer(
        axis=None,
        num_samples=100,
        kl_weight=0.5,
        rule=SNRThreshold(2.0),
        log_low=-10.0,
        log_high=1.0,
        noise="batch",
        learning_rate_multiplier=3.0,
        mu_initializer=keras.initializers.RandomNormal(stddev=0.1, seed=4),
        log_sigma_initializer=-2.0,
        seed=7,
        name="gate_7",
        dtype="mixed_bfloat16",
    )
    config = keras.saving.serialize_keras_object(layer)
    assert config["registered_name"] == "keras_sbp>SBPLayer"
    twin = keras.saving.deserialize_keras_object(config)
    assert twin.get_config() == layer.get_config()
    assert (twin.axis, twin.rule.threshold, twin.dtype_policy.name) == (None, 2.0, "mixed_bfloat16")
    missing = set(inspect.signature(SBPLayer.__init__).parameters) - set(config["config"])
    assert missing == {"self", "kwargs"}


def test_a_users_own_rule_is_asked_and_saved():
    layer = built(rule=EverySecond())
    np.testing.assert_array_equal(layer.keep(), [True, False, True, False])
    assert isinstance(SBPLayer.from_config(layer.get_config()).rule, EverySecond)
