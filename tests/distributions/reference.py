"""Exact values of the posterior's quantities, by mpmath and none of the package's formulas."""

from __future__ import annotations

import functools

import mpmath
import numpy as np

# The worst cancellation on the grid takes 40 digits (tiny σ) and 20 more (tails): 60 remain.
DIGITS = 130
AXIS = np.linspace(-20.0, 5.0, 26)
# Far outside, where training should never get; of the grid's shape, so that JAX compiles once.
FAR = np.meshgrid(np.linspace(-60.0, 60.0, 26), np.linspace(-25.0, 25.0, 26))
QUANTITIES = ("kl_to_log_uniform", "mean", "snr")


def exact(mu: float, log_sigma: float, low: float = -20.0, high: float = 0.0) -> list:
    """Returns KL, mean and SNR from the textbook formulas, in brute-force precision."""
    with mpmath.workdps(DIGITS):
        mu, low, high = mpmath.mpf(mu), mpmath.mpf(low), mpmath.mpf(high)
        sigma = mpmath.exp(mpmath.mpf(log_sigma))
        alpha, beta = (low - mu) / sigma, (high - mu) / sigma
        mass = _mass(alpha, beta)
        boundary = (alpha * mpmath.npdf(alpha) - beta * mpmath.npdf(beta)) / (2 * mass)
        kl = mpmath.log((high - low) / (sigma * mass)) - boundary
        kl -= mpmath.log(2 * mpmath.pi * mpmath.e) / 2
        first, second = (
            mpmath.exp(k * mu + (k * sigma) ** 2 / 2)
            * _mass(alpha - k * sigma, beta - k * sigma)
            / mass
            for k in (1, 2)
        )
        return [kl, first, first / mpmath.sqrt(second - first**2)]


def by_quadrature(mu: float, log_sigma: float, low: float = -20.0, high: float = 0.0) -> list:
    """Returns the same three numbers by integrating the definitions."""
    with mpmath.workdps(60):
        mu, sigma = mpmath.mpf(mu), mpmath.exp(mpmath.mpf(log_sigma))
        mode = min(max(mu, mpmath.mpf(low)), mpmath.mpf(high))
        slope = abs(mode - mu) / sigma**2
        scale = 1 / (slope + 1 / sigma)
        steps = [s * 2**k for s in (-1, 1) for k in range(-3, 10)]
        breaks = sorted({low, high, mode, *(mode + scale * s for s in steps)})
        breaks = [x for x in breaks if low <= x <= high]

        def integral(g):
            def integrand(x):
                log_f = ((mode - mu) ** 2 - (x - mu) ** 2) / (2 * sigma**2)
                return g(mpmath.exp(x), log_f) * mpmath.exp(log_f)

            return mpmath.quad(integrand, breaks)

        mass = integral(lambda theta, log_f: 1)
        mean = integral(lambda theta, log_f: theta) / mass
        variance = integral(lambda theta, log_f: (theta - mean) ** 2) / mass
        negative_entropy = integral(lambda theta, log_f: log_f) / mass - mpmath.log(mass)
        return [negative_entropy + mpmath.log(high - low), mean, mean / mpmath.sqrt(variance)]


def distribution_function(
    offset: float, mode: float, mu: float, log_sigma: float, low: float = -20.0, high: float = 0.0
) -> float:
    """Returns P(log θ ≤ mode + offset)."""
    with mpmath.workdps(60):
        x = min(max(mpmath.mpf(offset) + mode, low), high)
        sigma = mpmath.exp(mpmath.mpf(log_sigma))
        start, middle, end = ((y - mpmath.mpf(mu)) / sigma for y in (low, x, high))
        if start + end > 0:
            return float(1 - _mass(middle, end) / _mass(start, end))
        return float(_mass(start, middle) / _mass(start, end))


@functools.lru_cache
def grid() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Returns mu, log_sigma and the exact quantities at the 676 points of the default bounds."""
    mu, log_sigma = np.meshgrid(AXIS, AXIS, indexing="ij")
    values = [[float(v) for v in exact(m, s)] for m, s in zip(mu.flat, log_sigma.flat, strict=True)]
    columns = np.array(values).T.reshape(3, *mu.shape)
    return mu, log_sigma, dict(zip(QUANTITIES, columns, strict=True))


def _mass(start, end):
    """Φ(end) - Φ(start), on the side where both are small."""
    if start + end > 0:
        start, end = -end, -start
    root = mpmath.sqrt(2)
    return (mpmath.erfc(-end / root) - mpmath.erfc(-start / root)) / 2
