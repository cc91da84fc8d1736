"""The rule of the original paper: a threshold on the signal-to-noise ratio."""

from __future__ import annotations

from typing import Any, final

import numpy as np

from keras_sbp._arguments import check_number
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
        because = ", as an SNR is never negative, so no unit would ever go"
        self.threshold = check_number(
            "SNRThreshold", "threshold", threshold, positive=True, because=because
        )

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
