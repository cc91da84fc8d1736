"""What rules may know of the network that is to be pruned."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_sbp.distributions import TruncatedLogNormal
from keras_sbp.rules.least_squares import Selection


@dataclass(frozen=True, eq=False)
class UnitGroup:
    """Units that one gate governs, or would govern: each stays or goes at all its places.

    Attributes:
        name: of the gate.
        units: how many there are.
        posterior: of the gate, in NumPy float64; None in a network without gates.
        rule: the gate's own `PosteriorRule`; None in a network without gates.
        is_branch: whether the gate governs a whole tensor, as one unit.
        alive: boolean array of shape (units,), False for the frozen units, which go in any case.
            All are there unless it is given.
    """

    name: str
    units: int
    posterior: TruncatedLogNormal | None = None
    rule: Any = None
    is_branch: bool = False
    alive: np.ndarray = field(default_factory=lambda: np.array(True))

    def __post_init__(self) -> None:
        object.__setattr__(self, "alive", np.broadcast_to(self.alive, self.units))


@dataclass(frozen=True)
class Costs:
    """What the layers of a network cost, and which part of that each unit accounts for.

    Attributes:
        layers: float64 of shape (layers,), each layer's cost with all units there.
        shares: float64 of shape (groups, layers), the part of a layer's cost that goes with one
            unit of a group; 0 where the group has nothing to do with the layer.
    """

    layers: np.ndarray
    shares: np.ndarray

    def of_next(self, gone: np.ndarray) -> np.ndarray:
        """Returns what one unit of each group costs when so many of each group have gone.

        Args:
            gone: shape (groups,).
        """
        rest = self._rest(gone)
        now = self.layers * rest.prod(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.nansum(np.where(rest > 0, now * self.shares / rest, 0.0), 1)

    def remaining(self, gone: np.ndarray) -> float:
        """Returns the fraction of the cost that remains when so many of each group have gone."""
        whole = self.layers.sum()
        return float((self.layers * self._rest(gone).prod(0)).sum() / whole) if whole else 1.0

    def _rest(self, gone: np.ndarray) -> np.ndarray:
        """Which part of each layer is left by each group."""
        return np.maximum(1.0 - self.shares * gone[:, None], 0.0)


# An array of shape (units,) for each group.
PerUnit = Mapping[UnitGroup, np.ndarray]


@dataclass(frozen=True)
class Decision:
    """What a rule answers: which units stay, and why these.

    Attributes:
        keep: for each group a boolean array of shape (units,), True for the units that stay.
        importance: what `Rule.importance()` returned, if the decision took it; it is not asked
            for again. None where it did not.
    """

    keep: PerUnit
    importance: PerUnit | None = None


class Network(abc.ABC):
    """A network as rules see it; `prune()` makes it.

    Attributes:
        groups: all units that can go, in the order of the network.
        round_to: numbers of units are rounded up to multiples of this.
    """

    groups: Sequence[UnitGroup]
    round_to: int = 1

    @abc.abstractmethod
    def kernels(self, group: UnitGroup) -> Sequence[np.ndarray]:
        """Returns the weights that make a group's units, each of shape (units, ...).

        Empty where the weights cannot be told apart by units.
        """

    @abc.abstractmethod
    def normalization_scale(self, group: UnitGroup) -> np.ndarray | None:
        """Returns gamma of the last BatchNormalization in front of a group's gate, or None."""

    @abc.abstractmethod
    def squared_gradients(self, data: Any, loss: Any, batch_size: int) -> PerUnit:
        """Returns (∂loss/∂θ)² for each unit's factor θ at 1, averaged over batches.

        Args:
            data: `(x, y)`, as for `fit()`.
            loss: a Keras loss or its name; None takes that which the model is compiled with.
            batch_size: examples over whose mean loss one gradient is taken.
        """

    @abc.abstractmethod
    def costs(self, what: str) -> Costs:
        """Returns estimates of `"macs"` or `"params"` by layers."""

    @abc.abstractmethod
    def remaining(self, what: str, keep: PerUnit) -> float:
        """Returns the fraction that pruning really leaves of `"macs"`, `"params"`, `"latency"`.

        0.0 where an output would not depend on the input any more: nothing is left to prune to.
        """

    @abc.abstractmethod
    def input_change(
        self,
        data: Any,
        wanted: Mapping[UnitGroup, int] | None,
        *,
        variant: str,
        reweight: bool,
        ridge: float,
    ) -> Mapping[UnitGroup, Selection | None]:
        """Returns each group's units in the order in which its readers want them, or None.

        None stands for a group that no Dense layer or convolution reads.

        Args:
            data: inputs of the model, as for `predict()`.
            wanted: how many units of each group to choose, group after group, each in the
                network as it is then; None orders all units of each group, in the network with
                all units there.
            variant: where the readers' inputs and targets come from, see `LayerInputChange`.
            reweight: whether the readers of groups that are decided have new weights from then on.
            ridge: of the least squares.
        """
