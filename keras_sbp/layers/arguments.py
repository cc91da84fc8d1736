"""Checks of the gate's constructor arguments."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from keras_sbp.rules import PosteriorRule

NOISE_KINDS = ("example", "batch")


def check_number(argument: str, value: Any, *, above: float | None = None) -> float:
    """Returns a finite number as a float.

    Args:
        argument: Name of the constructor argument, for the message.
        value: What the user gave.
        above: If given, the number must be greater.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not finite or too small.
    """
    bound = "" if above is None else f" greater than {above:g}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"SBPLayer expected `{argument}` to be a number{bound}. "
            f"Received: {argument}={value!r} (of type {type(value).__name__})."
        )
    if not math.isfinite(value) or (above is not None and value <= above):
        raise ValueError(
            f"SBPLayer expected `{argument}` to be a finite number{bound}. "
            f"Received: {argument}={value!r}."
        )
    return float(value)


def check_num_samples(num_samples: Any) -> float | None:
    """Returns the number of training samples as a float, None if left open."""
    if num_samples is None:
        return None
    return check_number("num_samples", num_samples, above=0.0)


def check_kl_weight(kl_weight: Any) -> float:
    """Returns the weight of the KL, which may be 0 but not negative."""
    kl_weight = check_number("kl_weight", kl_weight)
    if kl_weight < 0:
        raise ValueError(
            "SBPLayer expected `kl_weight` to be 0 or greater: a negative weight rewards "
            f"distance from the prior. Received: kl_weight={kl_weight!r}. The default is 1.0."
        )
    return kl_weight


def check_log_bounds(log_low: Any, log_high: Any) -> tuple[float, float]:
    """Returns the ends of the interval that log theta is truncated to."""
    log_low = check_number("log_low", log_low)
    log_high = check_number("log_high", log_high)
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
