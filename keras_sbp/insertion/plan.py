"""The gates that are to be put into a network, and those that it has."""

from __future__ import annotations

from dataclasses import dataclass, field

from keras_sbp.program import Op
from keras_sbp.program.coupling import CoupledUnits
from keras_sbp.program.removal import Site


@dataclass(frozen=True, eq=False)
class Placement:
    """One gate, there or to be.

    Attributes:
        name: of the gate, not yet unique.
        producers: the layers whose units it gates.
        sites: where it is called.
        axis: the gate's argument.
        ops: all that goes on between the units' sources and their readers.
        group: the coupled units; None if the gate is for a whole branch.
    """

    name: str
    producers: list[Op]
    sites: list[Site]
    axis: int | None
    ops: list[Op]
    group: CoupledUnits | None = None

    @property
    def units(self) -> int:
        """How many units the gate has."""
        site = self.sites[0]
        return 1 if site.axis is None else site.tensor.size(site.axis)


@dataclass(frozen=True)
class Refusal:
    """Why some layers get no gate."""

    producers: list[Op]
    reason: str


@dataclass
class Plan:
    """The gates to be, those that are there already, and why other layers get none."""

    placements: list[Placement] = field(default_factory=list)
    existing: list[Placement] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
