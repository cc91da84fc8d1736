"""The rule of the original paper: a threshold on the signal-to-noise ratio."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, final

import numpy as np

from keras_sbp.distributions import TruncatedLogNormal
from keras_sbp.rules.network import UnitGroup
from keras_sbp.rules.rule import PosteriorRule, register_rule


@final
@register_rule("snr", package="keras_sbp")
class SNRThreshold(PosteriorRule):
    """Keeps the units whose SNR is at least a threshold.

    The SNR of a unit is `E[theta] / sqrt(Var[theta])` under its posterior. A
    unit below 1 carries more noise than signal. A unit whose SNR is not a
    number is kept: a failure of the arithmetic must never delete anything.

    Reference:
        Neklyudov et al. (2017), Structured Bayesian Pruning via Log-Normal
        Multiplicative Noise, section 3 (SNR as the criterion, threshold 1).

    Args:
        threshold: Positive float, dimensionless. Units with a smaller SNR go.

    Raises:
        TypeError: If `threshold` is not a number.
        ValueError: If `threshold` is not positive and finite.

    Example:

    >>> gate = keras_sbp.SBPLayer(rule=keras_sbp.SNRThreshold(0.5))
    """

    def __init__(self, threshold: float = 1.0) -> None:
        if isinstance(threshold, bool) or not isinstance(threshold, Real):
            raise TypeError(
                "SNRThreshold needs a number as its threshold. "
                f"Received: threshold={threshold!r} (of type {type(threshold).__name__}). "
                "Pass a positive float, such as 1.0."
            )
        if not (threshold > 0 and math.isfinite(threshold)):
            raise ValueError(
                "SNRThreshold needs a positive, finite threshold: an SNR is never negative, so "
                f"no unit would ever go. Received: threshold={threshold!r}. "
                "Pass a positive float, such as 1.0."
            )
        self.threshold = float(threshold)

    def scores(self, posterior: TruncatedLogNormal) -> Any:
        """Returns the SNR."""
        return posterior.snr()

    def keep(self, posterior: TruncatedLogNormal) -> Any:
        """Returns `SNR >= threshold` per unit, True also where the SNR is NaN.

        Args:
            posterior: The posterior of the units.

        Returns:
            A boolean array or tensor of the shape of `posterior.mu`.
        """
        # Every comparison with NaN is False, so "not below" keeps what ">=" would delete.
        return ~(self.scores(posterior) < self.threshold)

    def importance_of(self, group: UnitGroup) -> np.ndarray:
        """Returns log(SNR / threshold): about the nats that a unit's noise leaves of its signal."""
        with np.errstate(divide="ignore"):
            return np.log(super().importance_of(group) / self.threshold)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"threshold": self.threshold}
