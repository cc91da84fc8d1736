"""What rules may know of the network that is to be pruned."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_sbp.distributions import TruncatedLogNormal

Decisions = Mapping["UnitGroup", np.ndarray]


@dataclass(frozen=True, eq=False)
class UnitGroup:
    """Units that one gate governs, or would govern: each stays or goes at all its places.

    Attributes:
        name: of the gate.
        units: how many there are.
        posterior: of the gate, in NumPy float64; None in a network without gates.
    """

    name: str
    units: int
    posterior: TruncatedLogNormal | None = None


class Network(abc.ABC):
    """A network as rules see it.

    Attributes:
        groups: all units that can go, in the order of the network.
    """

    groups: Sequence[UnitGroup]
