"""The rule that knows nothing."""

from __future__ import annotations

from typing import Any, final

import numpy as np

from keras_sbp._arguments import check_count
from keras_sbp.rules.network import Network, UnitGroup
from keras_sbp.rules.ranking import Across
from keras_sbp.rules.rule import FractionRule, register_rule


@final
@register_rule("random", package="keras_sbp")
class Random(FractionRule):
    """Keeps random units: what a rule must at least be better than.

    In a `Budget`, its numbers count relative to those that are left in the
    group, as norms do.

    Args:
        keep: Float in (0, 1], the fraction of each group that stays.
        seed: Integer; the same seed keeps the same units.

    Example:

    >>> small, report = keras_sbp.prune(model, keras_sbp.Random(keep=0.5, seed=1))
    """

    across = Across.RELATIVE_PER_COST

    def __init__(self, keep: float = 0.5, seed: int = 0) -> None:
        super().__init__(keep)
        self.seed = check_count("Random", "seed", seed, at_least=0)

    def importance(self, network: Network) -> dict[UnitGroup, np.ndarray]:
        """Returns random numbers between 0 and 1."""
        rng = np.random.default_rng(self.seed)
        return {group: rng.random(group.units) for group in network.groups}

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"seed": self.seed}
