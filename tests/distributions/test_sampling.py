from __future__ import annotations

import keras
import mpmath
import numpy as np
import pytest
from scipy import stats

from keras_sbp.distributions import TruncatedLogNormal, sampling, special

from . import reference
from .gradients import gradients

HOST = (np, "float64", np.asarray)
TENSOR = (keras.ops, "float32", lambda x: keras.ops.convert_to_tensor(x, "float32"))
both = pytest.mark.parametrize(("xp", "dtype", "convert"), [HOST, TENSOR], ids=["host", "tensor"])
LEVELS = np.array([1e-4, 0.03, 0.25, 0.5, 0.75, 0.97, 1 - 1e-4])


def draw(uniform, mu, log_sigma, xp, dtype, convert, low=-20.0, high=0.0):
    """Returns x - x*, and its derivatives by mu and by log_sigma."""
    rule = special.quadrature(dtype, xp)
    unit = sampling.Unit(convert(mu), convert(log_sigma), low, high, rule, xp)
    uniform = convert(np.broadcast_to(uniform, np.broadcast_shapes(uniform.shape, mu.shape)))
    offset = sampling.draw(uniform, unit, xp)
    drawn = (offset, *sampling.slopes(uniform, offset, unit, xp))
    return [np.asarray(values, "float64") for values in drawn]


@both
@pytest.mark.parametrize(("low", "high"), [(-20.0, 0.0), (-5.0, 2.0), (-0.1, 0.0), (-1e-3, 0.0)])
def test_inverts_the_distribution_function(xp, dtype, convert, low, high):
    axis = np.concatenate([np.linspace(-20, 5, 11), np.linspace(5.25, 7, 8), [10.0, 17.0, 25.0]])
    mu, log_sigma = (x.ravel() for x in np.meshgrid(np.linspace(-20, 5, 11), axis))
    offsets, *_ = draw(LEVELS[:, None], mu, log_sigma, xp, dtype, convert, low, high)
    mode = np.clip(mu, low, high)
    for level, row in zip(LEVELS, offsets, strict=True):
        for point in zip(row, mode, mu, log_sigma, strict=True):
            found = reference.distribution_function(*point, low, high)
            # What is drawn for p is exceeded, seen from the nearer end, with probability p.
            expected = level if point[2] > 0.5 * (low + high) else 1 - level
            assert found == pytest.approx(expected, abs=3e-5), point


@pytest.mark.parametrize("make", [np.asarray, TENSOR[2]], ids=["host", "tensor"])
@pytest.mark.parametrize(
    ("mu", "log_sigma"),
    [(-8, 1), (-3, -4), (-19.5, 1), (-25, 0), (-19.9, -1), (5, 0), (3, 1), (5, -1), (-10, 7)],
)
def test_kolmogorov_smirnov(make, mu, log_sigma):
    posterior = TruncatedLogNormal(make([float(mu)]), make([float(log_sigma)]))
    log_theta = np.log(np.asarray(posterior.sample((20000, 1), seed=1), "float64"))[:, 0]
    sigma = np.exp(log_sigma)
    exact = stats.truncnorm((-20 - mu) / sigma, -mu / sigma, loc=mu, scale=sigma)
    assert stats.kstest(log_theta, exact.cdf).pvalue > 1e-3


@pytest.mark.parametrize("make", [np.asarray, TENSOR[2]], ids=["host", "tensor"])
def test_moments_of_samples_agree_with_the_formulas(make):
    mu, log_sigma = (x.ravel() for x in np.meshgrid([-20.0, -2.0, 0.0, 4.0], [-3.0, 0.0, 2.0]))
    posterior = TruncatedLogNormal(make(mu), make(log_sigma))
    samples = np.asarray(posterior.sample((40000, mu.size), seed=5), "float64")
    mean, variance = np.asarray(posterior.mean()), np.asarray(posterior.variance())
    z = (samples.mean(0) - mean) / np.sqrt(variance / len(samples))
    assert np.all(np.abs(z) < 4), z


@pytest.mark.parametrize("make", [np.asarray, TENSOR[2]], ids=["host", "tensor"])
@pytest.mark.parametrize(("low", "high"), [(-20.0, 0.0), (-5.0, 2.0), (-1e-3, 0.0)])
def test_samples_stay_within_the_bounds(make, low, high):
    mu, log_sigma = reference.FAR
    samples = np.asarray(
        TruncatedLogNormal(make(mu), make(log_sigma), low, high).sample((64, *mu.shape), seed=3)
    )
    ulp = np.finfo(samples.dtype).eps
    assert np.all(samples >= np.exp(low) * (1 - ulp)) and np.all(
        samples <= np.exp(high) * (1 + ulp)
    )


@both
def test_extreme_levels_are_finite(xp, dtype, convert):
    mu, log_sigma, _ = reference.grid()
    edge = 2.0**-24
    levels = np.array([edge, 1 - edge])[:, None, None]
    for values in draw(levels, mu, log_sigma, xp, dtype, convert):
        assert np.all(np.isfinite(values))


def test_gradients_are_finite_on_the_grid_and_beyond():
    mu, log_sigma, _ = reference.grid()
    for m, s in ((mu, log_sigma), reference.FAR):
        found = gradients(
            lambda m, s: TruncatedLogNormal(m, s).sample((64, *m.shape), seed=2), m, s
        )
        assert all(np.all(np.isfinite(g)) for g in found)


def exact_slopes(level, mu, log_sigma, low, high):
    """Derivatives of the inverse distribution function by mu and log_sigma, by mpmath."""

    def quantile(m, s):
        sigma = mpmath.exp(s)
        start, end = (mpmath.erfc((m - y) / sigma / mpmath.sqrt(2)) / 2 for y in (low, high))
        p = start + level * (end - start)
        return m - sigma * mpmath.sqrt(2) * mpmath.erfinv(1 - 2 * p)

    with mpmath.workdps(150):
        level, m, s, low, high = (mpmath.mpf(float(v)) for v in (level, mu, log_sigma, low, high))
        by_mu = mpmath.diff(lambda x: quantile(x, s), m, h="1e-40")
        return float(by_mu), float(mpmath.diff(lambda x: quantile(m, x), s, h="1e-40"))


# Inside, both moderate tails, a steep tail (nearly exponential) and a wide σ (narrow form); then
# exactly at the bounds, where every gate starts, tiny σ inside and near a bound, and tails at both
# sides of where the forms change.
SLOPES_AT = [
    *((-8.0, 1.0), (-3.0, -2.0), (-20.5, -1.0), (1.5, 0.0), (3.0, -1.5), (-10.0, 7.0)),
    *((0.0, -5.0), (0.0, 1.0), (-20.0, 5.0), (-20.0, 2.0), (-10.0, -12.0), (-0.01, -4.0)),
    *((2.0, -1.6), (2.0, -1.62), (5.0, 4.9), (-4.0, 6.4), (1.0, -3.0), (-27.0, 0.5)),
]


@both
@pytest.mark.parametrize(("low", "tolerance"), [(-20.0, 6e-4), (-0.1, 1e-4)])
def test_derivatives_are_right(xp, dtype, convert, low, tolerance):
    high = 0.0
    # Further out the reference itself would need more digits.
    points = [(m, s) for m, s in SLOPES_AT if max(m - high, low - m) < 22 * np.exp(s)]
    assert len(points) > 10
    mu, log_sigma = np.array(points).T
    uniform = np.array([0.05, 0.5, 0.9])
    _, *found = draw(uniform[:, None], mu, log_sigma, xp, dtype, convert, low, high)
    for i, p in enumerate(uniform):
        for j, (m, s) in enumerate(points):
            level = p if m > 0.5 * (low + high) else 1 - p
            exact = exact_slopes(level, m, s, low, high)
            for slope, expected in zip((found[0][i, j], found[1][i, j]), exact, strict=True):
                assert slope == pytest.approx(expected, rel=5e-3, abs=tolerance), (p, m, s)


def test_samples_carry_these_derivatives():
    mu, log_sigma = np.array(SLOPES_AT).T
    shape = (8, *mu.shape)
    found = gradients(lambda m, s: TruncatedLogNormal(m, s).sample(shape, seed=4), mu, log_sigma)
    posterior = TruncatedLogNormal(TENSOR[2](mu), TENSOR[2](log_sigma))
    uniform = np.asarray(posterior._uniform(shape, 4), "float64")
    offset, *slopes = draw(uniform, mu, log_sigma, *TENSOR)
    theta = np.exp(np.clip(mu, -20, 0) + offset)
    for gradient, slope in zip(found, slopes, strict=True):
        np.testing.assert_allclose(gradient, (theta * slope).sum(0), rtol=5e-3, atol=1e-4)


def test_a_seed_decides_the_samples():
    host = TruncatedLogNormal([-3.0, -1.0], [0.0, 0.0])
    np.testing.assert_array_equal(host.sample((5, 2), 1), host.sample((5, 2), 1))
    generator = np.random.default_rng(1)
    first, second = host.sample((5, 2), generator), host.sample((5, 2), generator)
    np.testing.assert_array_equal(first, host.sample((5, 2), 1))
    assert not np.any(first == second)

    device = TruncatedLogNormal(TENSOR[2]([-3.0, -1.0]), TENSOR[2]([0.0, 0.0]))
    np.testing.assert_array_equal(device.sample((5, 2), 1), device.sample((5, 2), 1))
    seeds = keras.random.SeedGenerator(1)
    assert not np.any(np.asarray(device.sample((5, 2), seeds)) == device.sample((5, 2), seeds))


def test_shape_broadcasts_on_the_right():
    for make in (np.asarray, TENSOR[2]):
        posterior = TruncatedLogNormal(make([-3.0, -1.0]), make([0.0, 0.0]))
        assert tuple(posterior.sample((4, 3, 2), 0).shape) == (4, 3, 2)
        single = TruncatedLogNormal(make(-3.0), make(0.0))
        assert tuple(single.sample((4, 3, 2), 0).shape) == (4, 3, 2)


def test_seed_generators_serve_numpy_parameters_too() -> None:
    """Under Keras's NumPy backend, tensors are NumPy arrays."""
    posterior = TruncatedLogNormal(np.zeros(5), np.full(5, -1.0), -20.0, 0.0)
    draws = [posterior.sample((2, 5), keras.random.SeedGenerator(3)) for _ in range(2)]
    np.testing.assert_array_equal(*draws)
    generator = keras.random.SeedGenerator(3)
    first, second = (posterior.sample((2, 5), generator) for _ in range(2))
    assert (first != second).all()
