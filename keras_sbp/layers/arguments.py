"""Checks of the gate's constructor arguments."""

from __future__ import annotations

from typing import Any

from keras_sbp._arguments import check_number
from keras_sbp.rules import PosteriorRule

NOISE_KINDS = ("example", "batch")


def check_num_samples(num_samples: Any) -> float | None:
    """Returns the number of training samples as a float, None if left open."""
    if num_samples is None:
        return None
    return check_number("SBPLayer", "num_samples", num_samples, positive=True, such_as=60000.0)


def check_kl_weight(kl_weight: Any) -> float:
    """Returns the weight of the KL, which may be 0 but not negative."""
    because = ": a negative weight rewards distance from the prior"
    return check_number("SBPLayer", "kl_weight", kl_weight, at_least=0.0, because=because)


def check_log_bounds(log_low: Any, log_high: Any) -> tuple[float, float]:
    """Returns the ends of the interval that log theta is truncated to."""
    log_low = check_number("SBPLayer", "log_low", log_low, such_as=-20.0)
    log_high = check_number("SBPLayer", "log_high", log_high, such_as=0.0)
    if log_low >= log_high:
        raise ValueError(
            "SBPLayer truncates log theta to [log_low, log_high], which must not be empty. "
            f"Expected log_low < log_high. Received: log_low={log_low}, log_high={log_high}. "
            "The defaults are -20.0 and 0.0."
        )
    return log_low, log_high


def check_noise(noise: Any) -> str:
    """Returns the kind of noise."""
    if noise not in NOISE_KINDS:
        raise ValueError(
            'SBPLayer draws its noise once per "example" or once per "batch". '
            f"Expected noise to be one of {NOISE_KINDS}. Received: noise={noise!r}."
        )
    return noise


def check_rule(rule: Any) -> PosteriorRule:
    """Returns the rule."""
    if not isinstance(rule, PosteriorRule):
        raise TypeError(
            "SBPLayer asks a rule which units stay. Expected a "
            "keras_sbp.rules.PosteriorRule, such as keras_sbp.SNRThreshold(1.0), or None for "
            "that one. "
            f"Received: rule={rule!r} (of type {type(rule).__name__})."
        )
    return rule
