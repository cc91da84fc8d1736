"""Rules, which decide which units stay."""

from keras_sbp.selection.baselines import BatchNormScale, L1Norm, L2Norm, Random, Taylor
from keras_sbp.selection.bmrs import BMRSNormal, BMRSUniform
from keras_sbp.selection.budget import Budget
from keras_sbp.selection.input_change import LayerInputChange
from keras_sbp.selection.network import Costs, Decisions, Network, UnitGroup
from keras_sbp.selection.rule import OwnRules, PosteriorRule, Rule
from keras_sbp.selection.snr import SNRThreshold

__all__ = [
    "BMRSNormal",
    "BMRSUniform",
    "BatchNormScale",
    "Budget",
    "Costs",
    "Decisions",
    "L1Norm",
    "L2Norm",
    "LayerInputChange",
    "Network",
    "OwnRules",
    "PosteriorRule",
    "Random",
    "Rule",
    "SNRThreshold",
    "Taylor",
    "UnitGroup",
]
