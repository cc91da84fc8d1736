"""Rules, which decide which units stay.

`FractionRule` is the short form of a rule of your own, `PosteriorRule` the kind that a gate can
have, and `Rule` what they and all others are made from. `register_rule` makes one known to files
and to the command line.
"""

from keras_sbp.rules.bmrs import BMRSNormal, BMRSUniform
from keras_sbp.rules.budget import Budget
from keras_sbp.rules.input_change import LayerInputChange
from keras_sbp.rules.network import Costs, Decision, Network, PerUnit, UnitGroup
from keras_sbp.rules.random import Random
from keras_sbp.rules.ranking import Across
from keras_sbp.rules.rule import (
    FractionRule,
    OnlyFrozen,
    OwnRules,
    PosteriorRule,
    Rule,
    register_rule,
    registered_rules,
)
from keras_sbp.rules.snr import SNRThreshold
from keras_sbp.rules.taylor import Taylor
from keras_sbp.rules.weight_norms import BatchNormScale, L1Norm, L2Norm

__all__ = [
    "Across",
    "BMRSNormal",
    "BMRSUniform",
    "BatchNormScale",
    "Budget",
    "Costs",
    "Decision",
    "FractionRule",
    "L1Norm",
    "L2Norm",
    "LayerInputChange",
    "Network",
    "OnlyFrozen",
    "OwnRules",
    "PerUnit",
    "PosteriorRule",
    "Random",
    "Rule",
    "SNRThreshold",
    "Taylor",
    "UnitGroup",
    "register_rule",
    "registered_rules",
]
