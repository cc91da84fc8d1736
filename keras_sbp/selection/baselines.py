"""The rules that others are compared with: they need no gates."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, final

import numpy as np

from keras_sbp.selection.network import Network, UnitGroup
from keras_sbp.selection.ranking import most_important
from keras_sbp.selection.rule import Rule


class FractionRule(Rule):
    """Keeps a fraction of each group of units, the most important ones.

    Args:
        keep: Float in (0, 1], the fraction of each group that stays. At least
            one unit does; a unit of unknown importance does too.

    Raises:
        TypeError: If `keep` is not a number.
        ValueError: If `keep` is not in (0, 1].
    """

    def __init__(self, keep: float = 0.5) -> None:
        self.keep = check_fraction(type(self).__name__, "keep", keep)

    def decide(self, network: Network) -> dict[UnitGroup, np.ndarray]:
        """Returns the most important units of each group."""
        importance = self.importance(network)
        return {
            group: most_important(importance[group], math.ceil(self.keep * group.units))
            for group in network.groups
        }

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments that are plain values."""
        return {"keep": self.keep}


class _Norm(FractionRule):
    """By a norm of the weights that make a unit."""

    is_relative = True

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
        return sum(self.norms(each) for each in rows)


@final
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

    def importance(self, network: Network) -> dict[UnitGroup, np.ndarray]:
        """Returns |gamma|; NaN for groups that have none."""
        found = {group: network.normalization_scale(group) for group in network.groups}
        return {
            group: np.full(group.units, np.nan) if scale is None else np.abs(scale)
            for group, scale in found.items()
        }


@final
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

    is_relative = True

    def __init__(self, keep: float = 0.5, seed: int = 0) -> None:
        super().__init__(keep)
        if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
            raise ValueError(
                f"Random expected `seed` to be an integer of 0 or more. Received: seed={seed!r}."
            )
        self.seed = int(seed)

    def importance(self, network: Network) -> dict[UnitGroup, np.ndarray]:
        """Returns random numbers between 0 and 1."""
        rng = np.random.default_rng(self.seed)
        return {group: rng.random(group.units) for group in network.groups}

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return super().get_config() | {"seed": self.seed}


@final
class Taylor(FractionRule):
    """Keeps the units whose removal changes the loss most, to first order.

    The importance of a unit is (∂loss/∂θ)² for its factor θ at 1: the squared
    sum of activation times gradient. It is averaged over batches. The network
    runs as at inference: without dropout, with the statistics that it has.

    Reference:
        Molchanov et al. (2019), Importance Estimation for Neural Network
        Pruning (https://arxiv.org/abs/1906.10771), equation 8.

    Args:
        data: `(x, y)`: inputs and targets, as for `fit()`; a few hundred
            examples do.
        keep: Float in (0, 1], the fraction of each group that stays.
        loss: A Keras loss, or its name. `None` takes the loss that the model
            is compiled with.
        batch_size: Examples over whose mean loss one gradient is taken.

    Example:

    >>> small, report = keras_sbp.prune(model, keras_sbp.Taylor((x, y), keep=0.5, loss="mse"))
    """

    def __init__(
        self, data: tuple[Any, Any], keep: float = 0.5, loss: Any = None, batch_size: int = 16
    ) -> None:
        super().__init__(keep)
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise TypeError(
                "Taylor needs inputs and targets. Expected data=(x, y), as for fit(). "
                f"Received: data of type {type(data).__name__}."
            )
        self.data, self.loss, self.batch_size = tuple(data), loss, batch_size

    def importance(self, network: Network) -> dict[UnitGroup, np.ndarray]:
        """Returns the mean squared gradients."""
        return dict(network.squared_gradients(self.data, self.loss, self.batch_size))


def check_fraction(rule: str, name: str, value: Any) -> float:
    """Returns a number in (0, 1].

    Raises:
        TypeError: it is not a number.
        ValueError: it is not in this range.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{rule} expected `{name}` to be a number. "
            f"Received: {name}={value!r} (of type {type(value).__name__}). "
            "Pass a float, such as 0.5."
        )
    if not 0 < value <= 1:
        raise ValueError(
            f"{rule} expected `{name}` to be a fraction above 0 and at most 1. "
            f"Received: {name}={value!r}. Pass a float, such as 0.5."
        )
    return float(value)
