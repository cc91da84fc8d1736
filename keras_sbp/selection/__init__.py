"""Rules, which decide which units stay."""

from keras_sbp.selection.network import Network, UnitGroup
from keras_sbp.selection.rule import PosteriorRule, Rule
from keras_sbp.selection.snr import SNRThreshold

__all__ = ["Network", "PosteriorRule", "Rule", "SNRThreshold", "UnitGroup"]
