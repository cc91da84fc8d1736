"""A pruned program, and who needs and has some of its units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from keras_sbp.graph import Analysis, Graph, Op, Tensor
from keras_sbp.graph.checks import ask_needs
from keras_sbp.graph.handler import kind
from keras_sbp.graph.units import Known, Needs, kept


@dataclass(frozen=True, eq=False)
class Units:
    """Some units along one axis of a tensor.

    Attributes:
        tensor, axis: where they lie.
        those: True for these units; shape (size of the axis,).
    """

    tensor: Tensor
    axis: int
    those: np.ndarray

    def among(self, needs: Needs | None) -> int:
        """Returns how many of the units are needed, or carried; None stands for nothing."""
        if needs is None:
            return 0
        return int((self.those & kept(needs, self.axis, self.those.size)).sum())


class PrunedProgram:
    """A pruned program, as the search for culprits sees it.

    Args:
        graph: with decided gates.
        analysis: of the graph.
        carried: tensor → units that the small network has; what it lacks is missing.
    """

    def __init__(self, graph: Graph, analysis: Analysis, carried: Mapping[Tensor, Needs]) -> None:
        self.outputs = set(graph.outputs)
        self.analysis, self.carried = analysis, carried
        self.makers = {tensor: op for op in graph.ops for tensor in op.outputs}
        self.readers: dict[Tensor, list[tuple[Op, int]]] = {}
        for op, i in analysis.edges:
            self.readers.setdefault(op.inputs[i], []).append((op, i))

    def needs(self, units: Units) -> int:
        """Returns how many of the units anything needs."""
        return units.among(self.analysis.needed.get(units.tensor))

    def is_read(self, units: Units) -> bool:
        """Tells whether any reader needs any of the units."""
        edges = self.readers.get(units.tensor, ())
        is_output = units.tensor in self.outputs
        return is_output or any(units.among(self.analysis.edges[edge]) for edge in edges)

    def has(self, units: Units) -> int:
        """Returns how many of the units the small network has."""
        return units.among(self.carried.get(units.tensor))

    def known(self, op: Op) -> list[Known]:
        """Returns what is known of an op's inputs."""
        return [self.analysis.known[tensor] for tensor in op.inputs]

    def needed(self, op: Op) -> list[Needs | None]:
        """Returns what is needed of an op's outputs."""
        return [self.analysis.needed.get(tensor) for tensor in op.outputs]

    def would_need(
        self, op: Op, i: int, units: Units, needed: list[Needs | None], known: list[Known]
    ) -> bool:
        """Tells whether an op would need units of an input if this were needed and known."""
        if all(each is None for each in needed):
            return False
        return units.among(ask_needs(self.analysis.handlers[op], op, needed, known)[i]) > 0

    def needs_of(self, op: Op, units: Units) -> list[Needs | None]:
        """Returns what an op needs of its inputs for units of an output, whatever is known."""
        needs = {units.axis: units.those}
        needed = [needs if tensor is units.tensor else None for tensor in op.outputs]
        return ask_needs(self.analysis.handlers[op], op, needed, [{} for _ in op.inputs])

    def made_of(self, op: Op, units: Units) -> list[Units]:
        """Returns the units of an op's inputs that become these units, and nothing else."""
        probe = units.those.copy()
        if probe.all():
            probe[-1] = False  # one is left to compare with: a layer may need everything for each
        if not probe.any():
            return []
        theirs, others = (
            self.needs_of(op, Units(units.tensor, units.axis, those)) for those in (probe, ~probe)
        )
        found = []
        for tensor, mine, rest in zip(op.inputs, theirs, others, strict=True):
            for axis, those in (mine or {}).items():
                alone = those if rest is None else those & ~kept(rest, axis, those.size)
                if alone.any() and (not has_weights(op) or np.array_equal(alone, those)):
                    found.append(Units(tensor, axis, alone | units.those.all()))
        return found

    def is_made(self, units: Units) -> bool:
        """Tells whether what computes the tensor makes or weighs units, not just hands them on."""
        op = self.makers.get(units.tensor)
        return op is not None and (has_weights(op) or not self.made_of(op, units))

    def opaque(self, op: Op) -> str:
        """Names an opaque op; why a layer with weights is one, its own row of the report says."""
        what = f"opaque {kind(op).removeprefix('the ')}"
        why = "" if has_weights(op) else f": {self.analysis.opaque[op]}"
        return f"'{op.name}' ({what}{why})"


def has_weights(op: Op) -> bool:
    """Tells whether a call is of a layer with weights."""
    return bool(getattr(op.operation, "weights", ()))
