"""Rules, which decide from posteriors which units stay."""

from keras_sbp.selection.rule import Rule
from keras_sbp.selection.snr import SNRThreshold

__all__ = ["Rule", "SNRThreshold"]
