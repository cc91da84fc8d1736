"""The places at which one gate must be called, so that a removed unit can really go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from keras_sbp.program import Op, macs
from keras_sbp.program.coupling import CoupledUnits, Spot
from keras_sbp.program.handler import kind
from keras_sbp.program.removal import Edge, Outcome, Site, Trials


class CannotGateError(Exception):
    """Says in a few words why a group gets no gate.

    Attributes:
        blockers: ops that need a unit even where it is constant.
    """

    def __init__(self, reason: str, blockers: Sequence[Op] = ()) -> None:
        super().__init__(reason)
        self.blockers = list(blockers)


class SiteSearch:
    """Looks for sites, best first, and tries each on the program.

    Args:
        group: the units.
        trials: of the program.
    """

    def __init__(self, group: CoupledUnits, trials: Trials) -> None:
        self._group = group
        self._trials = trials
        self.ops = list(dict.fromkeys(group.makers.values()))
        self.origins = self._find_origins()
        self._clean = self._find_clean()

    def find(self, *, tie_residual: bool) -> list[Site]:
        """Returns where to call the gate: once if possible, else wherever the units are written.

        Raises:
            CannotGateError: a unit could not go, wherever the gate stands; or several layers
                write the units, and `tie_residual` is False.
        """
        several = len({id(self._group.makers[s].operation) for s in self._group.sources}) > 1
        apart = tie_residual or not several
        for zeros in (False, True):
            sites = self._one_place(zeros)
            if sites is None and apart:
                sites = self._at_several_places(zeros)
            if sites is not None:
                return sites
        # What would not help is not advised.
        if not apart and any(self._at_several_places(zeros) for zeros in (False, True)):
            raise CannotGateError(self._who_else_writes())
        blockers = self._blockers()
        raise CannotGateError(_needed_by(blockers), blockers)

    # Candidates -----------------------------------------------------------------------------

    def _find_origins(self) -> dict[Spot, frozenset[Spot]]:
        """Which sources each spot is computed from."""
        origins: dict[Spot, frozenset[Spot]] = {}
        for spot, handed_on in self._group.spots.items():
            origins[spot] = frozenset([spot]).union(*(origins[each] for each in handed_on))
            if handed_on:
                origins[spot] -= {spot}
        return origins

    def _find_clean(self) -> list[Spot]:
        """Spots behind their last unit-wise op, not behind pooling, padding or a change of axes."""
        clean: dict[Spot, bool] = {}
        for spot, handed_on in self._group.spots.items():
            op = self._group.makers.get(spot)
            if op is None or not handed_on or macs(op) > 0 or len(op.inputs) > 1:
                clean[spot] = True
            else:
                same_shape = op.inputs[0].shape == spot.tensor.shape
                clean[spot] = same_shape and clean[handed_on[0]]
        return [spot for spot, is_clean in clean.items() if is_clean]

    # Attempts -------------------------------------------------------------------------------

    def _one_place(self, zeros: bool) -> list[Site] | None:
        """The last spot that all readers lie behind; if there are several, on the first path."""
        first = self._group.sources[0]
        on_path = [spot for spot in self._clean if first in self.origins[spot]]
        elsewhere = [spot for spot in self._clean if first not in self.origins[spot]]
        for spot in [*reversed(on_path), *reversed(elsewhere)]:
            if self._frees_all([_site(spot)], zeros):
                return [_site(spot)]
        return None

    def _at_several_places(self, zeros: bool) -> list[Site] | None:
        """Behind the normalisation of a pre-activation block only its reader is left."""
        return self._where_written(zeros) or self._where_read(zeros)

    def _where_written(self, zeros: bool) -> list[Site] | None:
        """Each source's last unit-wise op before the streams meet."""
        sites = {source: _site(source) for source in self._group.sources}
        for source in sites:
            alone = [spot for spot in self._clean if self.origins[spot] == {source}]
            for spot in reversed(alone):
                trial = sites | {source: _site(spot)}
                if self._freed(trial.values(), True) >= self._freed(sites.values(), True):
                    sites = trial
                    break
        if not self._frees_all(sites.values(), zeros):
            return None
        # Where streams are multiplied, one gate is enough for both.
        for source in list(sites) if len(sites) > 1 else []:
            fewer = {each: site for each, site in sites.items() if each is not source}
            if self._frees_all(fewer.values(), zeros):
                sites = fewer
        return list(sites.values())

    def _where_read(self, zeros: bool) -> list[Site] | None:
        """In front of everything that mixes the units with others."""
        sites = []
        for spot in self._group.spots:
            edges = self._trials.readers.get(spot.tensor, [])
            mixing = frozenset(edge for edge in edges if not self._hands_on(edge, spot))
            if len(mixing) == len(edges):
                sites.append(_site(self._before_pooling(spot)))
            elif mixing:
                sites.append(_site(spot, mixing))
        return sites if self._frees_all(sites, zeros) else None

    def _before_pooling(self, spot: Spot) -> Spot:
        """Goes back to a clean spot, if nothing else is read on the way."""
        earlier = spot
        while earlier not in self._clean:
            earlier = self._group.spots[earlier][0]
            if len(self._trials.readers[earlier.tensor]) > 1:
                return spot
        return earlier

    def _hands_on(self, edge: Edge, spot: Spot) -> bool:
        op, _ = edge
        return any(
            self._group.makers.get(after) is op and spot in before
            for after, before in self._group.spots.items()
            if after.tensor in op.outputs
        )

    def _outcome(self, sites: Iterable[Site], zeros: bool) -> Outcome:
        return self._trials.remove(list(sites), self.ops, zeros=zeros)

    def _freed(self, sites: Iterable[Site], zeros: bool) -> set[Spot]:
        outcome = self._outcome(sites, zeros)
        return {source for source in self._group.sources if outcome.frees(source)}

    def _frees_all(self, sites: Iterable[Site], zeros: bool) -> bool:
        return len(self._freed(sites, zeros)) == len(self._group.sources)

    # Reasons --------------------------------------------------------------------------------

    def _who_else_writes(self) -> str:
        names = list(dict.fromkeys(self._group.makers[s].name for s in self._group.sources))
        shown = ", ".join(f"'{name}'" for name in names[:3])
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"{shown}{more} write the same units; tie_residual=True gives them one shared gate"

    def _blockers(self) -> list[Op]:
        """Ops that need the removed unit although it is 0, and let it go no further."""
        sites = [_site(source) for source in self._group.sources]
        outcome = self._outcome(sites, zeros=True)
        found = []
        for (op, i), known in outcome.known.items():
            needs = outcome.edges.get((op, i))
            loses = not any(outcome.known.get(edge) for edge in self._edges_behind(op))
            zero = {axis: constant == 0 for axis, constant in known.items()}
            if needs is None or not loses:
                continue
            if any(zero[a][needs.get(a, np.ones_like(zero[a]))].any() for a in zero):
                found.append(op)
        return list(dict.fromkeys(found))

    def _edges_behind(self, op: Op) -> list[Edge]:
        return [edge for tensor in op.outputs for edge in self._trials.readers.get(tensor, ())]


def _site(spot: Spot, readers: frozenset[Edge] | None = None) -> Site:
    return Site(spot.tensor, spot.axis, readers)


def _needed_by(blockers: list[Op]) -> str:
    if not blockers:
        return "its units reach an output of the model"
    names = ", ".join(f"'{op.name}' ({kind(op)})" for op in blockers[:3])
    return f"{names} needs all of its units"
