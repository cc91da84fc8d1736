"""Samples of a normal variable truncated to [a, b], and their derivatives by its parameters.

Let y be the distance of x from that end of [a, b] which is nearer to μ, t the distance from μ to
this end (negative if μ lies inside) and w = b - a, all in units of σ. Then y has the density
`exp(-y²/2 - ty)` on [0, w], and the probability p that y is exceeded gives y back:

    y = Φ̄⁻¹(q) - t,  q = pΦ̄(t) + (1 - p)Φ̄(t + w),  Φ̄(z) = 1 - Φ(z).

Both terms of q are positive. In real numbers that would be all. In floating point y loses its
digits (1) in a steep tail, t ≫ 1, and (2) where [a, b] is much narrower than σ. There the density
is nearly exponential over its whole support:

1. Steep: ζ = ty + y²/2 has the density `exp(-ζ)/√(t² + 2ζ)` on [0, tw + w²/2], to first order an
   exponential of rate 1 + 1/t². The rate r = 1 + 1/(t² + 3) is the better fit by a factor of 4:
   for t ≥ 10 the distribution functions differ by less than 3e-5.
2. Narrow: y itself is exponential of rate t + w/2, the slope at the middle; the logarithms of the
   densities differ by y(w - y)/2 ≤ w²/8.

**One formula for all three.** With ρ = √(-log q), where q of the nearly exponential forms is a
mixture of 1 and `exp(-rate)`, each form is a rational function of ρ (of p, if narrow) whose
coefficients depend on the unit alone, so that a sample costs a logarithm, a root and some
multiply-adds.

**Derivatives** are implicit (Figurnov, Mohamed, Mnih 2018, https://arxiv.org/abs/1805.08498): at a
fixed p, dx = -dF/f. For a truncated normal variable all terms of dF are elementary. With the
density f less its normalisation, and the shares N = p f(near end)/f(x), A = (1 - p) f(far end)/f(x)
that the two ends have,

    ∂x/∂μ = 1 - N - A,
    ∂x/∂log σ = (x - μ) - (near end - μ) N - (far end - μ) A.

In a steep tail 1 - N is a small difference; it is y less dζ/dt at a fixed p, over t + y.
"""

from __future__ import annotations

from typing import Any

from keras_sbp.distributions import special

# Where the nearly exponential forms take over: at both thresholds their error is about that of
# the other form in float32, 2e-5 in probability.
_STEEP = 10.0
_NARROW = 0.03


class Unit:
    """What samples of a unit have in common.

    Everything along x is measured from the mode, μ clipped to [a, b]: a tiny σ keeps its digits.

    Args:
        mu: Mean of the untruncated variable.
        log_sigma: Logarithm of its standard deviation.
        low: Lower bound of the variable.
        high: Upper bound of the variable.
        rule: The quadrature of the parameters' dtype.
        xp: `numpy` or `keras.ops`.
    """

    def __init__(
        self, mu: Any, log_sigma: Any, low: float, high: float, rule: special.Quadrature, xp: Any
    ) -> None:
        # A compiler makes a kernel of each exponential and each quotient, so those are few here.
        sigma, self.precision = _exp(xp, log_sigma, -log_sigma)
        mode = xp.clip(mu, low, high)
        from_high = mu > 0.5 * (low + high)
        self.low, self.high = low - mode, high - mode
        self.near = xp.where(from_high, self.high, self.low)
        self.far = xp.where(from_high, self.low, self.high)
        self.outside = mode - mu
        self.tau = self.outside * self.precision
        t = xp.where(from_high, mu - high, low - mu) * self.precision
        width = (high - low) * self.precision
        self.steep = t > _STEEP
        self.narrow = (width < _NARROW) & ~self.steep
        exponential = self.steep | self.narrow
        self.scale = xp.where(from_high, -sigma, sigma)
        self.shift = xp.where(exponential, self.near, -self.outside)

        steep = _Steep(t, width, xp)
        self.near_density, self.far_density, steep_bottom = _exp(
            xp, -self._drop(self.near), -self._drop(self.far), -steep.drop
        )
        _, above = special.normal_tails(xp.stack([t, t + width]), rule, xp)
        # q = bottom + span p. Above one half Φ̄ is read off the other tail, 1 - q; the exponential
        # forms have none.
        self.bottom = xp.where(self.steep, steep_bottom, above[1])
        self.span = xp.where(self.steep, 1.0 - steep_bottom, above[0] - above[1])
        self.top = xp.where(exponential, 4.0 * xp.ones_like(t), xp.ones_like(t))
        self.coefficients = [
            xp.where(self.steep, of_steep, xp.where(self.narrow, of_narrow, of_normal))
            for of_steep, of_narrow, of_normal in zip(
                steep.coefficients, _narrow(t, width, xp), special.QUANTILE, strict=True
            )
        ]
        self.steep_tau = xp.where(self.steep, self.tau, 1e9 * xp.ones_like(t))  # u + this is not 0
        self.slope_by_square = xp.where(from_high, -steep.slope, steep.slope)
        self.slope_by_far = xp.where(self.steep, steep.slope_by_far, xp.ones_like(t))

    def _drop(self, offset: Any) -> Any:
        u = offset * self.precision
        return u * (0.5 * u + self.tau)


def _exp(xp: Any, *values: Any) -> list[Any]:
    together = xp.exp(xp.stack(values))
    return [together[number] for number in range(len(values))]


class _Steep:
    """The steep form of a unit; finite where it does not apply."""

    def __init__(self, t: Any, width: Any, xp: Any) -> None:
        t = xp.maximum(t, _STEEP)
        width = xp.minimum(width, 1e4)  # there is no mass further out; its square cannot overflow
        excess = 1.0 / (t * t + 3.0)
        rate, total = 1.0 + excess, width * (t + 0.5 * width)
        self.drop = rate * total
        # ζ = ρ²/rate. y = 2ζ/(t + √(t² + 2ζ)) is ζ/t over 1 + h/(1 + h/(1 + ...)), h = ζ/2t².
        # With two of these it is ζ/t (1 + h)/(1 + 2h), to 1e-6 in probability.
        zero, slope = xp.zeros_like(t), rate * t
        scale = 2.0 * slope * t
        numerator = (xp.ones_like(t), zero, scale, zero, zero)
        self.coefficients = (*numerator, zero, 2.0 * slope, zero, scale * slope)
        # At a fixed p, dζ/dt is ζ times this, and what a finite width adds. 1/rate is a series.
        self.slope = 2.0 * t * excess * excess * (1.0 - excess * (1.0 - excess))
        self.slope_by_far = (width - self.slope * total) / (t + width)


def _narrow(t: Any, width: Any, xp: Any) -> tuple:
    """y = -log(1 - c(1 - p))/λ with c = 1 - exp(-λw), by a Padé approximant of log(1 + x)."""
    width = xp.minimum(width, _NARROW)
    drop = xp.minimum(t + 0.5 * width, _STEEP + _NARROW) * width  # λw, at most 0.3
    per_rate = width * (1.0 - drop / 2.0 * (1.0 - drop / 3.0 * (1.0 - drop / 4.0)))  # c/λ
    c = drop * (1.0 - drop / 2.0 * (1.0 - drop / 3.0 * (1.0 - drop / 4.0 * (1.0 - drop / 5.0))))
    zero = xp.zeros_like(t)
    numerator = (-3.0 * c, 6.0 * c - 6.0, 6.0 - 3.0 * c)
    return (
        *(zero, zero, *(n * per_rate for n in numerator)),
        *(zero, c * c, 6.0 * c - 2.0 * c * c, 6.0 - 6.0 * c + c * c),
    )


def draw(uniform: Any, unit: Unit, xp: Any) -> Any:
    """Turns uniform numbers into samples.

    Args:
        uniform: Values in (0, 1), of a shape that broadcasts with that of the parameters: the
            probability that x is further away from the end of [a, b] that is nearer to μ.
        unit: Of the parameters.
        xp: `numpy` or `keras.ops`.

    Returns:
        x less the mode, of the broadcast shape.
    """
    above = unit.bottom + unit.span * uniform
    below = unit.top - above
    root = xp.sqrt(-xp.log(xp.maximum(xp.minimum(above, below), special.SMALLEST_TAIL)))
    root = xp.where(unit.narrow, uniform, root)
    n4, n3, n2, n1, n0, d3, d2, d1, d0 = unit.coefficients
    steps = ((((n4 * root + n3) * root + n2) * root + n1) * root + n0) / (
        ((d3 * root + d2) * root + d1) * root + d0
    )
    offset = unit.shift + unit.scale * xp.where(above > below, -steps, steps)
    return xp.clip(offset, unit.low, unit.high)


def slopes(uniform: Any, offset: Any, unit: Unit, xp: Any) -> tuple[Any, Any]:
    """Returns the derivatives of x by μ and by log σ, for what `draw` was given and gave."""
    u = offset * unit.precision
    drop = u * (0.5 * u + unit.tau)
    per_density = xp.exp(drop)
    near = uniform * per_density
    far = unit.far_density * (per_density - near)
    near = unit.near_density * near
    steep = (u - unit.slope_by_square * drop) / (u + unit.steep_tau)
    by_mu = xp.where(unit.steep, steep, 1.0 - near) - unit.slope_by_far * far
    by_log_sigma = (
        offset - unit.near * (near + far) + unit.outside * by_mu - (unit.far - unit.near) * far
    )
    return by_mu, by_log_sigma
