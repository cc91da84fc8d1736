from __future__ import annotations

import dataclasses

import keras
import mpmath
import numpy as np
import pytest

from keras_sbp.distributions import TruncatedLogNormal

from . import reference
from .gradients import gradients

ALL = (*reference.QUANTITIES, "variance")
BOUNDS = [(-20.0, 0.0), (-5.0, 2.0), (-1.0, 0.0), (-1e-3, 0.0), (-40.0, 0.0)]


def tensors(mu, log_sigma, low=-20.0, high=0.0):
    convert = keras.ops.convert_to_tensor
    return TruncatedLogNormal(convert(mu, "float32"), convert(log_sigma, "float32"), low, high)


def evaluate(posterior, quantity):
    return np.asarray(getattr(posterior, quantity)())


def random_points(low, high, count=25):
    """Points near the interval, exactly representable in float32."""
    rng = np.random.default_rng(7)
    mu = rng.uniform(low - 5, high + 8, count).astype("float32")
    log_sigma = rng.uniform(-20, 6, count).astype("float32")
    return mu.astype("float64"), log_sigma.astype("float64")


def test_the_reference_agrees_with_quadrature():
    for mu, log_sigma in [(-20.0, 0.5), (-10.0, -20.0), (5.0, -20.0)]:
        exact, integrated = (f(mu, log_sigma) for f in (reference.exact, reference.by_quadrature))
        for a, b in zip(exact, integrated, strict=True):
            assert abs(a / b - 1) < mpmath.mpf("1e-20")


def test_host_is_exact_on_the_grid():
    mu, log_sigma, exact = reference.grid()
    posterior = TruncatedLogNormal(mu, log_sigma)
    for quantity in reference.QUANTITIES:
        value = evaluate(posterior, quantity)
        assert value.dtype == np.float64
        np.testing.assert_allclose(value, exact[quantity], rtol=1e-11, err_msg=quantity)


def test_float32_is_exact_on_the_grid():
    mu, log_sigma, exact = reference.grid()
    posterior = tensors(mu, log_sigma)
    for quantity, rtol, atol in [
        ("kl_to_log_uniform", 0.0, 1e-5),
        ("mean", 1e-5, 0.0),
        ("snr", 1e-5, 0.0),
    ]:
        value = evaluate(posterior, quantity)
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, exact[quantity], rtol=rtol, atol=atol, err_msg=quantity)


@pytest.mark.parametrize("quantity", ALL)
def test_gradients_are_finite_on_the_grid(quantity):
    mu, log_sigma, _ = reference.grid()
    found = gradients(lambda m, s: getattr(TruncatedLogNormal(m, s), quantity)(), mu, log_sigma)
    for name, gradient in zip(("mu", "log_sigma"), found, strict=True):
        assert np.all(np.isfinite(gradient)), name


def exact_gradient(which, mu, log_sigma, argument):
    def along(x):
        point = (x, log_sigma) if argument == "mu" else (mu, x)
        return reference.exact(*point)[which]

    with mpmath.workdps(reference.DIGITS):
        return float(mpmath.diff(along, mu if argument == "mu" else log_sigma, h="1e-30"))


@pytest.mark.parametrize(("which", "quantity"), list(enumerate(reference.QUANTITIES)))
def test_gradients_are_right(which, quantity):
    points = [(-3, 1), (5, -4), (-20, 0), (0, -3), (-10, -20), (5, -20), (5, 5), (-12, 2), (-1, 3)]
    mu, log_sigma = np.array(points, "float64").T
    found = gradients(lambda m, s: getattr(TruncatedLogNormal(m, s), quantity)(), mu, log_sigma)
    for name, gradient in zip(("mu", "log_sigma"), found, strict=True):
        exact = [exact_gradient(which, m, s, name) for m, s in points]
        # A derivative that vanishes by symmetry (SNR inside, by μ) is compared to the value.
        scale = np.abs([float(reference.exact(m, s)[which]) for m, s in points])
        error = np.abs(gradient - exact) / np.maximum(np.abs(exact), 0.1 * scale)
        assert np.all(error < 1e-4), (name, error)


@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_other_bounds(low, high):
    mu, log_sigma = random_points(low, high)
    host, device = (make(mu, log_sigma, low, high) for make in (TruncatedLogNormal, tensors))
    points = zip(mu, log_sigma, strict=True)
    exact = np.array([reference.exact(*point, low, high) for point in points])
    for which, quantity in enumerate(reference.QUANTITIES):
        expected = exact[:, which].astype("float64")
        atol = 1e-5 if quantity == "kl_to_log_uniform" else 0.0
        close = np.testing.assert_allclose
        close(evaluate(host, quantity), expected, rtol=1e-10, atol=1e-6 * atol, err_msg=quantity)
        close(evaluate(device, quantity), expected, rtol=1e-5, atol=atol, err_msg=quantity)


@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_far_outside_the_grid_all_is_finite(low, high):
    mu, log_sigma = reference.FAR
    for posterior in (
        TruncatedLogNormal(mu, log_sigma, low, high),
        tensors(mu, log_sigma, low, high),
    ):
        for quantity in ALL:
            assert np.all(np.isfinite(evaluate(posterior, quantity))), quantity
        assert np.all(evaluate(posterior, "kl_to_log_uniform") > -1e-12)
        assert np.all(evaluate(posterior, "snr") > 0)
    for quantity in ("kl_to_log_uniform", "mean"):
        found = gradients(
            lambda m, s, q=quantity: getattr(TruncatedLogNormal(m, s, low, high), q)(),
            mu,
            log_sigma,
        )
        assert all(np.all(np.isfinite(g)) for g in found), quantity


def test_a_wide_sigma_is_log_uniform():
    log_sigma = np.linspace(6, 25, 20)
    for posterior in (TruncatedLogNormal(-7.0, log_sigma), tensors(-7.0, log_sigma)):
        kl = evaluate(posterior, "kl_to_log_uniform")
        assert np.all(np.abs(kl) < 1e-6) and abs(kl[-1]) < 1e-12
        np.testing.assert_allclose(evaluate(posterior, "mean"), -np.expm1(-20) / 20, rtol=1e-2)


def test_variance_is_consistent_with_mean_and_snr():
    mu, log_sigma, exact = reference.grid()
    expected = (exact["mean"] / exact["snr"]) ** 2
    np.testing.assert_allclose(TruncatedLogNormal(mu, log_sigma).variance(), expected, rtol=1e-11)


@pytest.mark.parametrize("make", [TruncatedLogNormal, tensors])
def test_nan_in_nan_out(make):
    posterior = make([np.nan, -1.0, -1.0], [-1.0, np.nan, -1.0])
    for quantity in ALL:
        assert np.isnan(evaluate(posterior, quantity)).tolist() == [True, True, False]
    samples = np.asarray(posterior.sample((4, 3), seed=0))
    assert np.isnan(samples).all(axis=0).tolist() == [True, True, False]


def test_host_takes_numbers_lists_and_float32_arrays():
    expected = TruncatedLogNormal(np.array([-1.0, -2.0]), np.array([-3.0, -3.0])).snr()
    assert TruncatedLogNormal(-1.0, -3.0).snr() == expected[0]
    np.testing.assert_array_equal(TruncatedLogNormal([-1, -2], -3).snr(), expected)
    narrow = TruncatedLogNormal(np.array([-1.0, -2.0], "float32"), np.float32(-3)).snr()
    assert narrow.dtype == np.float64
    np.testing.assert_array_equal(narrow, expected)


def test_tensors_variables_and_half_precision():
    expected = tensors([-1.0, -2.0], [-3.0, -3.0]).snr()
    variable = keras.Variable([-1.0, -2.0])
    mixed = TruncatedLogNormal(variable, np.array([-3.0, -3.0])).snr()
    half = TruncatedLogNormal(
        keras.ops.convert_to_tensor([-1.0, -2.0], "bfloat16"),
        keras.ops.convert_to_tensor(-3.0, "bfloat16"),
    ).snr()
    for value in (mixed, half):
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
        np.testing.assert_array_equal(value, expected)


@pytest.mark.tensorflow
def test_float64_tensors_are_as_exact_as_the_host():
    mu, log_sigma, exact = reference.grid()
    posterior = TruncatedLogNormal(*map(keras.ops.convert_to_tensor, (mu, log_sigma)))
    for quantity in reference.QUANTITIES:
        np.testing.assert_allclose(evaluate(posterior, quantity), exact[quantity], rtol=1e-11)
    assert posterior.sample((3, 26, 26), seed=1).dtype == "float64"


@pytest.mark.parametrize(("low", "high"), [(0, 0), (1, -1), (-np.inf, 0), (np.nan, 0)])
def test_bounds_must_enclose_an_interval(low, high):
    with pytest.raises(
        ValueError, match=r"Expected: finite log_low < log_high\. Received: log_low"
    ):
        TruncatedLogNormal(0.0, 0.0, low, high)


def test_is_immutable():
    posterior = TruncatedLogNormal(0.0, -1.0)
    assert (posterior.log_low, posterior.log_high) == (-20.0, 0.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        posterior.mu = 1.0
