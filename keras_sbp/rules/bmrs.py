"""The rules of Bayesian model reduction: does the evidence grow without the unit?"""

from __future__ import annotations

import math
from typing import Any, final

import numpy as np

from keras_sbp._arguments import check_number
from keras_sbp.distributions import TruncatedLogNormal
from keras_sbp.rules.network import UnitGroup
from keras_sbp.rules.rule import PosteriorRule, register_rule

# Below this, float32 cannot hold the square of what is divided by sigma.
_SMALLEST_SIGMA = 1e-30
# What a float32 number resolves: the bits of its significand.
_FINEST_BITS = 23


class _ModelReduction(PosteriorRule):
    """Removes the units whose change in log evidence, ΔF, reaches a threshold."""

    keeps_high = False
    threshold = 0.0

    def importance_of(self, group: UnitGroup) -> np.ndarray:
        """Returns `threshold - ΔF`: what the evidence loses without the unit, in nats."""
        return super().importance_of(group) + self.threshold

    def keep(self, posterior: TruncatedLogNormal) -> Any:
        """Returns `ΔF < threshold` per unit, True also where ΔF is NaN.

        Args:
            posterior: The posterior of the units.

        Returns:
            A boolean array or tensor of the shape of `posterior.mu`.
        """
        # Every comparison with NaN is False, so "not above" keeps what "<" would delete.
        return ~(self.scores(posterior) >= self.threshold)


@final
@register_rule("bmrs-normal", package="keras_sbp")
class BMRSNormal(_ModelReduction):
    """Removes the units that a prior concentrated near zero explains at least as well.

    The gate's prior is log-uniform. The rule asks how the log evidence of the
    data would change, unit by unit, if the prior were a narrow log-normal at
    the lower end of the interval instead, where the factor is practically 0.
    This change ΔF follows from the posterior alone; a unit goes where
    ΔF >= 0, that is, where the posterior is at least as dense at the lower
    end as the prior.

    ΔF is the logarithm of `∫ q p̃/p` and is computed as derived, with all its
    constants. The authors' published code leaves out a `-0.5 log(2 pi)`, so
    that it finds ΔF larger by 0.92 and removes many more units: a posterior
    whose `mu` lies in the upper half of the interval is never denser at the
    lower end than the prior, and with the whole constant its unit stays,
    however noisy it is. `threshold=-0.92` decides as that code does.

    Reference:
        Wright et al. (2024), BMRS: Bayesian Model Reduction for Structured
        Pruning (https://arxiv.org/abs/2406.01345), the variant BMRS_N.

    Args:
        log_mean: Mean of log theta under the reduced prior, before
            truncation. `None` means the lower end of the posterior's
            interval, `log_low`.
        sigma: Its standard deviation (not the variance), at least 1e-30.
        threshold: Float, in nats. Units with this ΔF or more go.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If an argument is not finite, or `sigma` is too small.

    Example:

    >>> rule = keras_sbp.BMRSNormal()
    >>> posterior = keras_sbp.distributions.TruncatedLogNormal([-3, -12, -18], [1, 2, 1.5])
    >>> rule.scores(posterior).round(2)
    array([-18.33,  -0.3 ,   0.87])
    >>> rule.keep(posterior)
    array([ True,  True, False])
    >>> gate = keras_sbp.SBPLayer(rule=rule)
    """

    def __init__(
        self, log_mean: float | None = None, sigma: float = 1e-6, threshold: float = 0.0
    ) -> None:
        if log_mean is not None:
            log_mean = check_number("BMRSNormal", "log_mean", log_mean, such_as=-20.0)
        self.log_mean = log_mean
        self.sigma = check_number("BMRSNormal", "sigma", sigma, such_as=1e-6)
        self.threshold = check_number("BMRSNormal", "threshold", threshold, such_as=0.0)
        if not self.sigma >= _SMALLEST_SIGMA:
            raise ValueError(
                "BMRSNormal needs a standard deviation that is positive and not below "
                f"{_SMALLEST_SIGMA:g}. Received: sigma={sigma!r}. The default is 1e-6."
            )

    def scores(self, posterior: TruncatedLogNormal) -> Any:
        """Returns ΔF in nats."""
        log_mean = posterior.log_low if self.log_mean is None else self.log_mean
        return posterior.delta_f_log_normal(log_mean, self.sigma)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"log_mean": self.log_mean, "sigma": self.sigma, "threshold": self.threshold}


@final
@register_rule("bmrs-uniform", package="keras_sbp")
class BMRSUniform(_ModelReduction):
    """Removes the units whose factor may as well lie below `2**-bits`.

    The gate's prior is log-uniform. The rule asks how the log evidence of the
    data would change, unit by unit, if it were log-uniform on
    `[2**-23, 2**-bits]` only: on factors that a number of `bits` bits cannot
    tell from 0. This change ΔF follows from the posterior alone; a unit goes
    where ΔF >= 0, that is, where the posterior puts at least as much mass on
    that part of its interval as the prior did. So a unit whose factor lies
    below `2**-23` for the most part stays; trained posteriors seldom get there.

    Where the gate's interval `[log_low, log_high]` does not hold all of the
    reduced one, their common part is used. In contrast to the authors'
    published code, `mu` is not clipped to the interval.

    Reference:
        Wright et al. (2024), BMRS: Bayesian Model Reduction for Structured
        Pruning (https://arxiv.org/abs/2406.01345), the variant BMRS_U.

    Args:
        bits: Number from 0 to below 23. 8 and 4 are the paper's.

    Raises:
        TypeError: If `bits` is not a number.
        ValueError: If `bits` is out of range; from `scores()` and `keep()`,
            if the posterior's interval has nothing in common with the reduced
            one, or lies inside it.

    Example:

    >>> rule = keras_sbp.BMRSUniform(bits=8)
    >>> posterior = keras_sbp.distributions.TruncatedLogNormal([0.0, -8.0], [-3.0, 1.0])
    >>> rule.keep(posterior)
    array([ True, False])
    >>> gate = keras_sbp.SBPLayer(rule=rule)
    """

    def __init__(self, bits: float = 8) -> None:
        bits = check_number("BMRSUniform", "bits", bits, such_as=8.0)
        if not 0 <= bits < _FINEST_BITS:
            raise ValueError(
                f"BMRSUniform expected `bits` from 0 to below {_FINEST_BITS}. "
                f"Received: bits={bits!r}. The default is 8."
            )
        self.bits = int(bits) if bits.is_integer() else bits

    def scores(self, posterior: TruncatedLogNormal) -> Any:
        """Returns ΔF in nats."""
        return posterior.delta_f_log_uniform(*self._interval(posterior))

    def _interval(self, posterior: TruncatedLogNormal) -> tuple[float, float]:
        full = (posterior.log_low, posterior.log_high)
        low = max(full[0], -_FINEST_BITS * math.log(2.0))
        high = min(full[1], -self.bits * math.log(2.0))
        if low >= high or (low, high) == full:
            raise ValueError(
                f"{self!r} compares factors from 2**-{_FINEST_BITS} to 2**-{self.bits} with all "
                "that a posterior may take. Expected a posterior on an interval of log theta that "
                "holds some of these factors and others too, such as [-20.0, 0.0]. Received: "
                f"log_low={full[0]}, log_high={full[1]}. Change SBPLayer(log_low=..., "
                "log_high=...) or take another rule."
            )
        return low, high

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"bits": self.bits}
