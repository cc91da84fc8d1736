"""SNRThreshold: the criterion, on the host and in the graph."""

from __future__ import annotations

import types

import keras
import numpy as np
import pytest
from keras import ops

from keras_sbp.distributions import TruncatedLogNormal
from keras_sbp.rules import PosteriorRule, SNRThreshold


def posterior_with_snr(snr):
    return types.SimpleNamespace(snr=lambda: snr)


@pytest.mark.parametrize("backend", ["host", "tensor"])
def test_keeps_at_and_above_the_threshold_and_where_snr_is_nan(backend):
    snr = np.array([0.0, 0.5, 0.999, 1.0, 7.0, np.inf, np.nan])
    snr = snr if backend == "host" else ops.convert_to_tensor(snr.astype("float32"))
    keep = SNRThreshold(1.0).keep(posterior_with_snr(snr))
    keep = keep if backend == "host" else ops.convert_to_numpy(keep)
    assert keep.dtype == bool
    np.testing.assert_array_equal(keep, [False, False, False, True, True, True, True])


def test_host_and_graph_agree_on_real_posteriors():
    rng = np.random.default_rng(0)
    mu, log_sigma = rng.uniform(-20, 5, 500), rng.uniform(-20, 5, 500)
    on_host = TruncatedLogNormal(mu, log_sigma)
    in_graph = TruncatedLogNormal(
        ops.convert_to_tensor(mu.astype("float32")),
        ops.convert_to_tensor(log_sigma.astype("float32")),
    )
    for threshold in (0.3, 1.0, 3.0):
        # Rounding may tip a unit that sits on the threshold, and no other.
        clear = np.abs(on_host.snr() / threshold - 1) > 1e-3
        rule = SNRThreshold(threshold)
        expected = rule.keep(on_host)
        assert 0 < expected.sum() < 500
        got = ops.convert_to_numpy(rule.keep(in_graph))
        np.testing.assert_array_equal(got[clear], expected[clear])


def test_a_higher_threshold_keeps_fewer():
    posterior = TruncatedLogNormal(np.zeros(50), np.linspace(-5, 5, 50))
    kept = [SNRThreshold(t).keep(posterior).sum() for t in (0.5, 1.0, 2.0, 10.0)]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > kept[-1]


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_a_threshold_that_is_not_positive_and_finite(threshold):
    with pytest.raises(ValueError, match="positive"):
        SNRThreshold(threshold)


@pytest.mark.parametrize("threshold", ["1", None, True, [1.0]])
def test_refuses_a_threshold_that_is_not_a_number(threshold):
    with pytest.raises(TypeError, match="number"):
        SNRThreshold(threshold)


def test_round_trips_through_its_config():
    config = keras.saving.serialize_keras_object(SNRThreshold(2.5))
    assert config["registered_name"] == "keras_sbp>SNRThreshold"
    rule = keras.saving.deserialize_keras_object(config)
    assert isinstance(rule, SNRThreshold)
    assert rule.threshold == 2.5
    assert repr(rule) == "SNRThreshold(threshold=2.5)"


def test_a_rule_without_keep_is_abstract():
    class Undecided(PosteriorRule):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Undecided()
