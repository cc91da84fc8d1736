"""Inverse distribution function of a normal variable truncated to [a, b].

`z = Φ⁻¹(Φ(α) + v Z)`, with α = (a - μ)/σ and Z = Φ(β) - Φ(α), is read off the smaller of its two
tail probabilities, both of which are formed as sums of positive terms. In real numbers that would
be all. In floating point `z - α` loses its digits (1) in a steep tail, α ≫ 1 or β ≪ -1, and
(2) where [a, b] is much narrower than σ. There the density is nearly exponential over its whole
support. Let y be the distance from that end of [a, b] which is nearer to μ, t the distance from μ
to this end (negative if μ lies inside) and w = b - a, all in units of σ; y has the density
`exp(-y²/2 - ty)` on [0, w].

1. Steep: ζ = ty + y²/2 has the density `exp(-ζ)/√(t² + 2ζ)` on [0, tw + w²/2], to first order an
   exponential of rate 1 + 1/t². The rate 1 + 1/(t² + 3) is the better fit by a factor of 4: for
   t ≥ 10 the distribution functions differ by less than 3e-5.
2. Narrow: y itself is exponential of rate t + w/2, the slope at the middle; the logarithms of the
   densities differ by y(w - y)/2 ≤ w²/8.

All that depends on a unit only is computed on the shape of its parameters; per sample remain two
weighted sums, four elementary functions and one rational one.
"""

from __future__ import annotations

from typing import Any

from keras_sbp.distributions import special

# Where the nearly exponential forms take over: at both thresholds their error is about that of
# the other form in float32, 2e-5 in probability.
_STEEP = 10.0
_NARROW = 0.03


def inverse_cdf(
    uniform: Any,
    mu: Any,
    log_sigma: Any,
    low: float,
    high: float,
    rule: special.Quadrature,
    xp: Any,
) -> Any:
    """Returns x - x* at the given values of the distribution function of x.

    x* is the mode, `mu` clipped to [low, high]: measured from there a tiny σ keeps its digits.

    Args:
        uniform: Values in (0, 1), of a shape that broadcasts with that of the parameters.
        mu: Mean of the untruncated variable.
        log_sigma: Logarithm of its standard deviation.
        low: Lower bound of the variable.
        high: Upper bound of the variable.
        rule: The quadrature of the parameters' dtype.
        xp: `numpy` or `keras.ops`.

    Returns:
        Array or tensor, of the broadcast shape.
    """
    precision = xp.exp(-log_sigma)
    mode = xp.clip(mu, low, high)
    from_high = mu > 0.5 * (low + high)
    t = xp.where(from_high, mu - high, low - mu) * precision
    width = (high - low) * precision
    narrow = width < _NARROW

    from_end = xp.where(from_high, 1.0 - uniform, uniform)
    distance = _nearly_exponential(from_end, t, width, narrow, xp)
    distance = xp.where(from_high, -distance, distance)
    end = xp.where(from_high, high - mode, low - mode)

    z = _truncated_normal(uniform, (low - mu) * precision, (high - mu) * precision, rule, xp)

    exponential = narrow | (t > _STEEP)
    steps = xp.where(exponential, distance, z)
    return xp.exp(log_sigma) * steps + xp.where(exponential, end, mu - mode)


def _truncated_normal(
    uniform: Any, alpha: Any, beta: Any, rule: special.Quadrature, xp: Any
) -> Any:
    """Returns (x - μ)/σ."""
    below_low, above_low = special.normal_tails(alpha, rule, xp)
    below_high, above_high = special.normal_tails(beta, rule, xp)
    rest = 1.0 - uniform
    lower = rest * below_low + uniform * below_high
    upper = rest * above_low + uniform * above_high
    return special.normal_quantile(lower, upper, xp)


def _nearly_exponential(uniform: Any, t: Any, width: Any, narrow: Any, xp: Any) -> Any:
    """Returns the distance from the end, in units of σ; finite where neither form applies."""
    # In a steep tail there is no mass past 1e4, and its square cannot overflow.
    width = xp.minimum(width, 1e4)
    steep = xp.maximum(t, _STEEP)
    # The narrow form's rate may be 0, a uniform density: 1e-12 gives the same samples.
    slope = xp.where(narrow, xp.maximum(t + 0.5 * width, 1e-12), steep)
    total = width * xp.where(narrow, slope, steep + 0.5 * width)
    one = xp.ones_like(total)
    rate = xp.where(narrow, one, 1.0 + 1.0 / (steep * steep + 3.0))
    curvature = xp.where(narrow, 0.0 * one, 2.0 * one)
    zeta = -xp.log1p(uniform * xp.expm1(-rate * total)) / rate
    return 2.0 * zeta / (slope + xp.sqrt(slope * slope + curvature * zeta))
