"""Distributions of a unit's noise."""

from keras_sbp.distributions.truncated_log_normal import TruncatedLogNormal

__all__ = ["TruncatedLogNormal"]
