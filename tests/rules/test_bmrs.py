"""BMRSNormal and BMRSUniform: the criterion, on the host and in the graph."""

from __future__ import annotations

import math
import pathlib

import keras
import mpmath
import numpy as np
import pytest
from keras import ops
from mpmath import mpf

from keras_sbp.distributions import TruncatedLogNormal
from keras_sbp.layers import SBPLayer
from keras_sbp.rules import BMRSNormal, BMRSUniform

TRAINED = pathlib.Path(__file__).parent / "golden" / "lenet5_posteriors.npz"

# The published code leaves a constant out of ΔF, which is as good as this threshold.
PUBLISHED = -0.5 * math.log(2 * math.pi)
RULES = [
    BMRSNormal(),
    BMRSNormal(sigma=1e-3),
    BMRSNormal(-18.0, 0.5),
    BMRSUniform(),
    BMRSUniform(4),
    BMRSNormal(threshold=PUBLISHED),
]


def ids(rule):
    return repr(rule)


def in_graph(posterior):
    mu, log_sigma = (
        ops.convert_to_tensor(v, "float32") for v in (posterior.mu, posterior.log_sigma)
    )
    return TruncatedLogNormal(mu, log_sigma, posterior.log_low, posterior.log_high)


def spread_posterior(count=2000):
    """Points all over the plane, exactly representable in float32."""
    rng = np.random.default_rng(3)
    mu, log_sigma = (rng.uniform(-20, 5, count).astype("float32") for _ in range(2))
    return TruncatedLogNormal(mu.astype("float64"), log_sigma.astype("float64"))


def trained_posterior(step=15):
    """Of the gates of LeNet-5 after training on MNIST; every fifteenth unit."""
    with np.load(TRAINED) as file:
        return TruncatedLogNormal(*(file[n][::step].astype("float64") for n in ("mu", "log_sigma")))


def log_normaliser(mean, variance, low, high):
    """Of exp(-x²/2v + mx/v) on [low, high]: ∫ of it is exp(m²/2v) √(2πv) Z."""
    deviation = mpmath.sqrt(variance)
    start, end = (low - mean) / deviation, (high - mean) / deviation
    z = mpmath.quad(mpmath.npdf, [start, (start + end) / 2, end]) if end - start < 1 else None
    if z is None:
        if start + end > 0:
            start, end = -end, -start
        root = mpmath.sqrt(2)
        z = (mpmath.erfc(-end / root) - mpmath.erfc(-start / root)) / 2
    return mean**2 / (2 * variance) + mpmath.log(2 * mpmath.pi * variance) / 2 + mpmath.log(z)


def authors_definition(rule, mu, log_sigma, low=-20, high=0):
    """ΔF from the log normalisers of q, of the reduced prior, of their product and of p."""
    with mpmath.workdps(100):
        mu, variance = mpf(mu), mpmath.exp(2 * mpf(log_sigma))
        of_q = log_normaliser(mu, variance, low, high)
        if isinstance(rule, BMRSUniform):
            start, end = -23 * mpmath.log(2), -rule.bits * mpmath.log(2)
            of_product = log_normaliser(mu, variance, start, end)
            return of_product - of_q - mpmath.log(end - start) + mpmath.log(high - low)
        reduced = mpf(low if rule.log_mean is None else rule.log_mean), mpf(rule.sigma) ** 2
        precision = 1 / variance + 1 / reduced[1]
        mean = (mu / variance + reduced[0] / reduced[1]) / precision
        of_product = log_normaliser(mean, 1 / precision, low, high)
        return of_product - of_q - log_normaliser(*reduced, low, high) + mpmath.log(high - low)


@pytest.mark.parametrize("rule", RULES, ids=ids)
def test_decides_as_the_authors_define(rule):
    posterior = trained_posterior()
    pairs = zip(posterior.mu, posterior.log_sigma, strict=True)
    expected = np.array([float(authors_definition(rule, *pair)) for pair in pairs])
    np.testing.assert_allclose(rule.scores(posterior), expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(rule.keep(posterior), expected < rule.threshold)


def test_the_sets_are_not_trivial():
    posterior = trained_posterior()
    kept = {repr(rule): int(rule.keep(posterior).sum()) for rule in RULES}
    # With mu in the upper half the posterior is never denser at the low end than the prior.
    assert kept[repr(BMRSNormal())] == 92
    assert 5 < kept[repr(BMRSNormal(threshold=PUBLISHED))] < 46
    assert 5 < kept["BMRSUniform(bits=4)"] <= kept["BMRSUniform(bits=8)"] < 46
    spread = spread_posterior()
    for rule in RULES:
        assert 50 < rule.keep(spread).sum() < 1950


@pytest.mark.parametrize("rule", RULES, ids=ids)
def test_host_and_graph_agree(rule):
    for posterior in (spread_posterior(), trained_posterior()):
        on_host = rule.keep(posterior)
        score = rule.scores(posterior)
        # Rounding may tip a unit that sits on the border, and no other: no posterior that is
        # practically the prior, nor one so narrow that the bounds' own rounding matters.
        shifted = [
            rule.keep(TruncatedLogNormal(posterior.mu + step, posterior.log_sigma))
            for step in (-3e-6, 3e-6)
        ]
        clear = (np.abs(score - rule.threshold) > 1e-5) & (shifted[0] == shifted[1])
        assert clear.mean() > 0.99
        got = ops.convert_to_numpy(rule.keep(in_graph(posterior)))
        assert got.dtype == bool
        np.testing.assert_array_equal(got[clear], on_host[clear])


@pytest.mark.parametrize("rule", RULES, ids=ids)
@pytest.mark.parametrize("place", [lambda p: p, in_graph], ids=["host", "graph"])
def test_what_is_not_a_number_stays(rule, place):
    posterior = place(TruncatedLogNormal([np.nan, -18.0, 0.0], [1.0, np.nan, -5.0]))
    keep = ops.convert_to_numpy(rule.keep(posterior))
    np.testing.assert_array_equal(keep, [True, True, True])


def test_goes_at_zero():
    class Given:
        log_low, log_high = -20.0, 0.0

        def delta_f_log_normal(self, log_mean, sigma):
            return np.array([-1e-9, 0.0, 1e-9, np.nan, -np.inf])

    np.testing.assert_array_equal(BMRSNormal().keep(Given()), [True, False, False, True, True])


def test_the_mean_follows_the_interval_of_the_posterior():
    for low in (-20.0, -9.0):
        posterior = TruncatedLogNormal([-3.0, -8.0], [1.0, 2.0], low, 0.0)
        np.testing.assert_array_equal(
            BMRSNormal().scores(posterior), posterior.delta_f_log_normal(low, 1e-6)
        )
    given = BMRSNormal(log_mean=-12.0, sigma=0.1)
    np.testing.assert_array_equal(given.scores(posterior), posterior.delta_f_log_normal(-12.0, 0.1))


def test_bits_are_the_upper_end_and_the_posterior_cuts_the_interval():
    posterior = TruncatedLogNormal([-3.0, -8.0], [1.0, 2.0], -10.0, 0.0)
    np.testing.assert_array_equal(
        BMRSUniform(4).scores(posterior), posterior.delta_f_log_uniform(-10.0, -4 * math.log(2))
    )


@pytest.mark.parametrize("bounds", [(-5.0, 0.0), (-40.0, -20.0), (-10.0, -6.0)])
def test_an_interval_that_tells_nothing_is_refused(bounds):
    with pytest.raises(ValueError, match=rf"BMRSUniform\(bits=8\).*log_low={bounds[0]}"):
        BMRSUniform().keep(TruncatedLogNormal([-3.0], [1.0], *bounds))


@pytest.mark.parametrize("rule", [BMRSNormal(), BMRSUniform()], ids=ids)
def test_in_a_gate_the_compiled_step_decides_as_the_host_does(rule):
    gate = SBPLayer(rule=rule)
    model = keras.Sequential([keras.Input((4,)), gate])
    gate.set_posterior([0.0, -18.0, -10.0, -1.0], [-5.0, 1.5, 1.0, 0.0])
    outputs = model.predict(np.ones((1, 4), "float32"), verbose=0)[0]
    expected = gate.keep()
    assert 0 < expected.sum() < 4
    np.testing.assert_array_equal(outputs != 0, expected)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: BMRSNormal(sigma=0.0), ValueError),
        (lambda: BMRSNormal(sigma=-1.0), ValueError),
        (lambda: BMRSNormal(sigma=1e-40), ValueError),
        (lambda: BMRSNormal(sigma=float("inf")), ValueError),
        (lambda: BMRSNormal(log_mean=float("nan")), ValueError),
        (lambda: BMRSNormal(threshold=float("nan")), ValueError),
        (lambda: BMRSNormal(sigma="1"), TypeError),
        (lambda: BMRSNormal(log_mean=True), TypeError),
        (lambda: BMRSUniform(23), ValueError),
        (lambda: BMRSUniform(-1), ValueError),
        (lambda: BMRSUniform(float("nan")), ValueError),
        (lambda: BMRSUniform(None), TypeError),
    ],
)
def test_refuses_bad_arguments(make, error):
    with pytest.raises(error, match="^BMRS"):
        make()


@pytest.mark.parametrize("rule", RULES, ids=ids)
def test_round_trips_through_its_config(rule):
    config = keras.saving.serialize_keras_object(rule)
    assert config["registered_name"] == f"keras_sbp>{type(rule).__name__}"
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(rule)
    assert again.get_config() == rule.get_config()
    assert not rule.keeps_high


def test_reprs_show_the_arguments():
    assert repr(BMRSNormal()) == "BMRSNormal(log_mean=None, sigma=1e-06, threshold=0.0)"
    assert repr(BMRSUniform(np.float32(8))) == "BMRSUniform(bits=8)"
    assert repr(BMRSUniform(2.5)) == "BMRSUniform(bits=2.5)"
