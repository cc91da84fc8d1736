"""The rules that look at weights alone: norms of kernels, and the scales of normalization."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import final

import numpy as np

from keras_sbp.rules.network import Network, UnitGroup
from keras_sbp.rules.ranking import Across
from keras_sbp.rules.rule import FractionRule, register_rule


class _Norm(FractionRule):
    """By a norm of the weights that make a unit."""

    across = Across.RELATIVE_PER_COST

    @abc.abstractmethod
    def norms(self, kernel: np.ndarray) -> np.ndarray:
        """Returns the norm of each row."""

    def importance(self, network: Network) -> dict[UnitGroup, np.ndarray]:
        """Returns the norms, summed over the layers that make a group together.

        NaN where the weights cannot be told apart by units.
        """
        return {group: self._of(network.kernels(group), group.units) for group in network.groups}

    def _of(self, kernels: Sequence[np.ndarray], units: int) -> np.ndarray:
        if not kernels:
            return np.full(units, np.nan)
        rows = [np.reshape(kernel, (units, -1)).astype(np.float64) for kernel in kernels]
        return np.sum([self.norms(each) for each in rows], 0)


@final
@register_rule("l1", package="keras_sbp")
class L1Norm(_Norm):
    """Keeps the units whose weights have the largest L1 norms.

    In a `Budget`, a norm counts relative to the sum of those that are left in
    its group: weights of different layers are of different size.

    Reference:
        Li et al. (2017), Pruning Filters for Efficient ConvNets
        (https://arxiv.org/abs/1608.08710), section 3.1.

    Args:
        keep: Float in (0, 1], the fraction of each group that stays.

    Example:

    >>> small, report = keras_sbp.prune(model, keras_sbp.L1Norm(keep=0.5))
    """

    def norms(self, kernel: np.ndarray) -> np.ndarray:
        """Returns the sum of absolute values of each row."""
        return np.abs(kernel).sum(1)


@final
@register_rule("l2", package="keras_sbp")
class L2Norm(_Norm):
    """Keeps the units whose weights have the largest L2 norms; otherwise like `L1Norm`.

    Reference:
        Li et al. (2017), Pruning Filters for Efficient ConvNets
        (https://arxiv.org/abs/1608.08710), section 4.4.

    Args:
        keep: Float in (0, 1], the fraction of each group that stays.

    Example:

    >>> small, report = keras_sbp.prune(model, keras_sbp.L2Norm(keep=0.5))
    """

    def norms(self, kernel: np.ndarray) -> np.ndarray:
        """Returns the Euclidean norm of each row."""
        return np.sqrt((kernel**2).sum(1))


@final
@register_rule("batch-norm", package="keras_sbp")
class BatchNormScale(FractionRule):
    """Keeps the units with the largest |gamma| in the BatchNormalization behind their layer.

    Groups without a BatchNormalization that scales stay whole. Networks
    should be trained with an L1 penalty on gamma for this to mean much.

    Reference:
        Liu et al. (2017), Learning Efficient Convolutional Networks through
        Network Slimming (https://arxiv.org/abs/1708.06519), section 3.

    Args:
        keep: Float in (0, 1], the fraction of each group that stays.

    Example:

    >>> small, report = keras_sbp.prune(model, keras_sbp.BatchNormScale(keep=0.5))
    """

    across = Across.RELATIVE_PER_COST

    def importance(self, network: Network) -> dict[UnitGroup, np.ndarray]:
        """Returns |gamma|; NaN for groups that have none."""
        found = {group: network.normalization_scale(group) for group in network.groups}
        return {
            group: np.full(group.units, np.nan) if scale is None else np.abs(scale)
            for group, scale in found.items()
        }
