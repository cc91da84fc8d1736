"""Bayesian model reduction: what the evidence would gain under a narrower prior.

Let q be a posterior that was found under the prior p. Under another prior p̃ the evidence would be
larger by the factor ∫ q p̃/p, without fitting anything anew: ΔF is the logarithm of this integral.
Here, in x = log θ, q is normal and p uniform, both on [a, b], and p̃ says that the unit is not
needed: ΔF ≥ 0 means that the data do not object.

With `f(x; m, s) = exp(-(x - m)²/2s²)`, ⟨·⟩ the mean over an interval and ∫ over [a, b],

- p̃ uniform on [a', b'] ⊂ [a, b]:  ΔF = log⟨f(μ, σ)⟩[a', b'] - log⟨f(μ, σ)⟩[a, b].
- p̃ normal (μ̃, σ̃) on [a, b]:
  ΔF = log ∫f(μ, σ) f(μ̃, σ̃) - log ∫f(μ̃, σ̃) - log⟨f(μ, σ)⟩[a, b].

In the latter the product is again a bell, of mean `μ̃ + w(μ - μ̃)` and variance `(1 - w) σ̃²` with
`w = σ̃²/(σ² + σ̃²)`. So every term is the logarithm of the area of one bell over one interval. It
is taken apart into the logarithm of the bell's peak in the interval (at its mode there) and that
of the area for a peak of 1, which is a sum of positive terms (see `special`).

The peaks are huge and cancel, and are therefore summed in factors: with x_q and x_p the modes of
f(μ, σ) and f(μ̃, σ̃) and y the mode of the numerator, they add up to

    (x_q - y)(x_q - μ + y - μ)/2σ²  +  (x_p - y)(x_p - μ̃ + y - μ̃)/2σ̃²  ≤  0

(without the second term for a uniform p̃). Neither term is positive, and both factors of each are
differences that are formed as such, so nothing cancels. A wide q equals p, and ΔF is near 0: there
the areas are those of nearly flat bells, which `log1p` of the mean of `expm1` gives. Hence the
sign is right in float32 too.

Both functions take `xp` (`numpy` or `keras.ops`) and work on arrays and on tensors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from keras_sbp.distributions import special


class Bell(NamedTuple):
    """The part of a bell over an interval [l, h].

    Attributes:
        mode: Where it is highest, less its mean.
        log_area: Logarithm of its area for a height of 1 there, in multiples of a given unit.
    """

    mode: Any
    log_area: Any


def over_log_uniform(
    mu: Any,
    log_sigma: Any,
    bounds: tuple[float, float],
    reduced: tuple[float, float],
    rule: special.Quadrature,
    xp: Any,
) -> Any:
    """Returns ΔF for a reduced prior that is log-uniform on a part of the interval.

    Args:
        mu: Mean of the untruncated `log θ`.
        log_sigma: Logarithm of its standard deviation.
        bounds: The interval of the posterior and the full prior.
        reduced: The interval of the reduced prior, inside of `bounds`.
        rule: The quadrature of the parameters' dtype.
        xp: `numpy` or `keras.ops`.
    """
    sigma = xp.exp(log_sigma)
    full, part = (
        _bell(low - mu, high - mu, sigma, high - low, rule, xp) for low, high in (bounds, reduced)
    )
    peaks = _drop(xp.clip(mu, *bounds) - xp.clip(mu, *reduced), full.mode + part.mode, sigma)
    return peaks + part.log_area - full.log_area


def over_log_normal(
    mu: Any,
    log_sigma: Any,
    bounds: tuple[float, float],
    reduced: tuple[float, float],
    rule: special.Quadrature,
    xp: Any,
) -> Any:
    """Returns ΔF for a reduced prior that is log-normal, truncated to the same interval.

    Args:
        mu: Mean of the untruncated `log θ`.
        log_sigma: Logarithm of its standard deviation.
        bounds: The interval of the posterior and both priors.
        reduced: Mean and standard deviation of `log θ` under the reduced prior, untruncated.
        rule: The quadrature of the parameters' dtype.
        xp: `numpy` or `keras.ops`.
    """
    (low, high), (mean, deviation) = bounds, reduced
    sigma = xp.exp(log_sigma)
    towards_mu = 1.0 / (1.0 + (sigma / deviation) ** 2)
    towards_mean = 1.0 / (1.0 + (deviation / sigma) ** 2)
    shift = (mu - mean) * towards_mu
    from_mu = (mean - mu) * towards_mean
    # The mean of the product lies near that of the narrower bell, and is measured from there.
    narrow = sigma < deviation
    start, end = (
        xp.where(narrow, (bound - mu) - from_mu, (bound - mean) - shift) for bound in bounds
    )

    # The reduced prior is the same for all units, but its area has to come from the same
    # arithmetic as that of the product, which it equals for a wide posterior.
    zeros = 0.0 * (mu + sigma)
    wide = zeros + deviation
    q = _bell(low - mu, high - mu, sigma, high - low, rule, xp)
    prior = _bell(zeros + (low - mean), zeros + (high - mean), wide, deviation, rule, xp)
    product = _bell(start, end, deviation * xp.sqrt(towards_mean), deviation, rule, xp)
    from_mean = xp.clip(shift, low - mean, high - mean)
    from_mu = xp.clip(from_mu, low - mu, high - mu)
    peaks = _drop(q.mode - from_mu, q.mode + from_mu, sigma)
    peaks = peaks + _drop(prior.mode - from_mean, prior.mode + from_mean, deviation)
    return peaks + product.log_area - prior.log_area - q.log_area


def _drop(difference: Any, total: Any, sigma: Any) -> Any:
    """Returns `(r² - s²)/2σ²`, the fall of a bell from r to s, given r - s and r + s."""
    return 0.5 * (difference / sigma) * (total / sigma)


def _bell(low: Any, high: Any, sigma: Any, unit: float, rule: special.Quadrature, xp: Any) -> Bell:
    """Returns the bell of standard deviation `sigma` on an interval, its mean at 0."""
    mode = xp.clip(xp.zeros_like(low), low, high)
    tau = mode / sigma
    reach = sigma * special.reach(tau, rule.drop, xp)
    start = xp.maximum(low - mode, -reach)
    length = xp.minimum(high - mode, reach) - start
    u = (start[..., None] + length[..., None] * rule.nodes) / sigma[..., None]
    excess = xp.sum(rule.weights * xp.expm1(-u * (0.5 * u + tau[..., None])), axis=-1)
    return Bell(mode, xp.log(length / unit) + xp.log1p(excess))
