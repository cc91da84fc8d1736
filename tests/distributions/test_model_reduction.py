"""ΔF against mpmath: the closed forms, and the quadrature of the definition."""

from __future__ import annotations

import functools
import itertools
import math

import keras
import mpmath
import numpy as np
import pytest
from mpmath import mpf

from keras_sbp.distributions import TruncatedLogNormal

BITS = math.log(2.0)
# Mean and standard deviation of the reduced prior for the first kind, its interval for the second.
CASES = [
    ("log_normal", (-20.0, 0.0), (-20.0, 1e-6)),
    ("log_normal", (-20.0, 0.0), (-20.0, 1e-2)),
    ("log_normal", (-20.0, 0.0), (-19.0, 0.5)),
    ("log_normal", (-5.0, 2.0), (-5.0, 1e-6)),
    ("log_normal", (-5.0, 2.0), (-8.0, 2.0)),
    ("log_uniform", (-20.0, 0.0), (-23 * BITS, -8 * BITS)),
    ("log_uniform", (-20.0, 0.0), (-23 * BITS, -4 * BITS)),
    ("log_uniform", (-10.0, 1.0), (-10.0, -8 * BITS)),
    ("log_uniform", (-40.0, 0.0), (-23 * BITS, -8 * BITS)),
]


def mass(start, end):
    """Φ(end) - Φ(start), on the side where both are small."""
    if start + end > 0:
        start, end = -end, -start
    root = mpmath.sqrt(2)
    return (mpmath.erfc(-end / root) - mpmath.erfc(-start / root)) / 2


def exact(kind, mu, log_sigma, bounds, reduced):
    """Returns ΔF from the closed forms of the paper, in brute-force precision."""
    with mpmath.workdps(130):
        mu, sigma = mpf(mu), mpmath.exp(mpf(log_sigma))
        low, high, first, second = map(mpf, (*bounds, *reduced))

        def inside(start, end, mean, deviation):
            return mass((start - mean) / deviation, (end - mean) / deviation)

        normaliser = inside(low, high, mu, sigma)
        if kind == "log_uniform":
            share = inside(first, second, mu, sigma) / normaliser
            return mpmath.log(share * (high - low) / (second - first))
        variance = 1 / (1 / sigma**2 + 1 / second**2)
        mean = variance * (mu / sigma**2 + first / second**2)
        areas = inside(low, high, mean, mpmath.sqrt(variance)) / normaliser
        areas *= (high - low) / inside(low, high, first, second)
        exponent = mu**2 / sigma**2 + first**2 / second**2 - mean**2 / variance
        spread = 2 * mpmath.pi * sigma**2 * second**2 / variance
        return mpmath.log(areas) - mpmath.log(spread) / 2 - exponent / 2


def by_quadrature(kind, mu, log_sigma, bounds, reduced):
    """Returns log ∫ q p̃/p, every density normalised by quadrature as well."""
    with mpmath.workdps(30):
        mu, sigma = mpf(mu), mpmath.exp(mpf(log_sigma))
        low, high, first, second = map(mpf, (*bounds, *reduced))

        def q(x):
            return -((x - mu) ** 2) / (2 * sigma**2)

        def p(x):
            if kind == "log_uniform":
                return mpf(0)
            return -((x - first) ** 2) / (2 * second**2)

        limits = (first, second) if kind == "log_uniform" else (low, high)
        centres = {min(max(mu, low), high), *limits}
        scales = {sigma}
        if kind == "log_normal":
            weight = second**2 / (sigma**2 + second**2)
            product = first + weight * (mu - first)
            centres |= {min(max(first, low), high), min(max(product, low), high)}
            scales |= {second, mpmath.sqrt(weight) * sigma}
        scales |= {s**2 / abs(c - m) for s in set(scales) for c in centres for m in (mu, first)
                   if c != m}  # fmt: skip

        def integral(log_f, start, end):
            steps = [
                sign * s * mpf(4) ** k for s in scales for k in range(-1, 4) for sign in (-1, 1)
            ]
            breaks = {start, end, *centres, *(c + step for c in centres for step in steps)}
            breaks = sorted(x for x in breaks if start <= x <= end)
            heights = [log_f(x) for x in breaks]
            peak = max(heights)
            area = sum(
                mpmath.quad(lambda x: mpmath.exp(log_f(x) - peak), pair, method="gauss-legendre")
                for pair, ends in zip(
                    itertools.pairwise(breaks), itertools.pairwise(heights), strict=True
                )
                if max(ends) - peak > -70
            )
            return peak + mpmath.log(area)

        together = integral(lambda x: q(x) + p(x), *limits)
        return together + mpmath.log(high - low) - integral(q, low, high) - integral(p, *limits)


@functools.cache
def grid(kind, bounds, reduced):
    """Returns mu, log_sigma and ΔF, at points that float32 holds exactly."""
    mu = np.concatenate([np.linspace(-20.0, 5.0, 26), [-22.0, -19.99, -5.55, -5.5]])
    mu, log_sigma = np.meshgrid(mu.astype("float32"), np.linspace(-20.0, 5.0, 26))
    mu, log_sigma = mu.astype("float64").ravel(), log_sigma.ravel()
    values = [float(exact(kind, m, s, bounds, reduced)) for m, s in zip(mu, log_sigma, strict=True)]
    return mu, log_sigma, np.array(values)


def delta_f(posterior, kind, reduced):
    return getattr(posterior, f"delta_f_{kind}")(*reduced)


def tensors(mu, log_sigma, bounds):
    convert = keras.ops.convert_to_tensor
    return TruncatedLogNormal(convert(mu, "float32"), convert(log_sigma, "float32"), *bounds)


def relative(value, expected):
    """Relative to ΔF, absolute near its zeros."""
    return np.abs(value - expected) / np.maximum(np.abs(expected), 1.0)


@pytest.mark.parametrize(("kind", "bounds", "reduced"), CASES)
def test_the_closed_forms_are_the_integral(kind, bounds, reduced):
    points = [(-3.0, 1.0), (0.3, -4.0), (-22.0, 0.5), (-6.0, 5.0)]
    for mu, log_sigma in points:
        expected = exact(kind, mu, log_sigma, bounds, reduced)
        error = by_quadrature(kind, mu, log_sigma, bounds, reduced) - expected
        assert abs(error) < 1e-12 * max(1, abs(expected)), (mu, log_sigma)


@pytest.mark.parametrize(("kind", "bounds", "reduced"), CASES)
def test_host_is_exact_on_the_grid(kind, bounds, reduced):
    mu, log_sigma, expected = grid(kind, bounds, reduced)
    assert (expected >= 0).any() and (expected < 0).any()
    value = delta_f(TruncatedLogNormal(mu, log_sigma, *bounds), kind, reduced)
    assert value.dtype == np.float64
    assert relative(value, expected).max() < 1e-11


@pytest.mark.parametrize(("kind", "bounds", "reduced"), CASES)
def test_float32_has_the_sign_and_few_errors(kind, bounds, reduced):
    mu, log_sigma, expected = grid(kind, bounds, reduced)
    value = np.asarray(delta_f(tensors(mu, log_sigma, bounds), kind, reduced))
    assert value.dtype == np.float32
    assert relative(value, expected).max() < 1e-4
    # The exact values nearest to 0 are a few 1e-5: a posterior that is nearly the prior.
    clear = np.abs(expected) > 3e-6
    np.testing.assert_array_equal((value >= 0)[clear], (expected >= 0)[clear])
    assert clear.mean() > 0.99


def test_half_of_the_reduced_prior_at_the_border_lies_outside():
    # Near the border q is constant there, so ΔF is the log of its density times the width.
    posterior = TruncatedLogNormal(-17.0, 1.0)
    density = mpmath.npdf(-20, -17, mpmath.e) / mass(-3 / mpmath.e, 17 / mpmath.e)
    expected = float(mpmath.log(20 * density))
    np.testing.assert_allclose(posterior.delta_f_log_normal(-20.0, 1e-6), expected, rtol=1e-5)


@pytest.mark.parametrize(("kind", "bounds", "reduced"), CASES)
def test_finite_far_outside(kind, bounds, reduced):
    mu, log_sigma = np.meshgrid(np.linspace(-60.0, 60.0, 26), np.linspace(-25.0, 25.0, 26))
    for posterior in (TruncatedLogNormal(mu, log_sigma, *bounds), tensors(mu, log_sigma, bounds)):
        assert np.isfinite(np.asarray(delta_f(posterior, kind, reduced))).all()


@pytest.mark.parametrize("sigma", [1e-30, 1e-12, 3.0, 1e3])
def test_reduced_priors_of_any_width(sigma):
    mu, log_sigma = np.array([-20.0, -3.0, 0.0, 1.0]), np.array([1.0, 2.0, -20.0, 5.0])
    reduced = (-20.0, sigma)
    expected = [float(exact("log_normal", *at, (-20.0, 0.0), reduced))
                for at in zip(mu, log_sigma, strict=True)]  # fmt: skip
    for posterior, tolerance in [
        (TruncatedLogNormal(mu, log_sigma), 1e-11),
        (tensors(mu, log_sigma, (-20.0, 0.0)), 1e-5),
    ]:
        value = np.asarray(posterior.delta_f_log_normal(*reduced))
        assert relative(value, np.array(expected)).max() < tolerance


def test_elementwise_in_any_shape():
    for shape in [(), (3,), (2, 3)]:
        posterior = TruncatedLogNormal(np.full(shape, -3.0), np.ones(shape))
        assert posterior.delta_f_log_normal(-20.0, 1e-6).shape == shape
        assert posterior.delta_f_log_uniform(-15.0, -5.0).shape == shape
