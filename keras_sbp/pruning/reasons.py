"""Why a layer is opaque, or has units that the rule of a gate dropped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from keras_sbp.graph import Analysis, Graph, Op, Scale, Tensor
from keras_sbp.graph.facts import unit_axes
from keras_sbp.graph.units import Needs
from keras_sbp.pruning.culprits import before, behind, on_the_way
from keras_sbp.pruning.pruned_program import PrunedProgram, Units, has_weights


@dataclass(frozen=True)
class Reasons:
    """What the report says.

    Attributes:
        layers: reasons by the operation's id; operations without one are missing.
        gates: reasons by the id of the decided gate; gates whose decision was followed, and was
            the rule's own, are missing.
    """

    layers: dict[int, str]
    gates: dict[int, str]


def reasons(
    graph: Graph,
    analysis: Analysis,
    carried: Mapping[Tensor, Needs],
    rounded: Mapping[int, int],
) -> Reasons:
    """Returns why operations are opaque, and why units are there that a rule dropped.

    Args:
        graph: a program with decided gates.
        analysis: of the graph.
        carried: tensor → units that the small network has; what it lacks is missing.
        rounded: by the id of a decided gate: how many dropped units came back for `round_to`.
    """
    program = PrunedProgram(graph, analysis, carried)
    opaque = {id(op.operation): f"opaque: {why}" for op, why in analysis.opaque.items()}
    layers: dict[int, dict[str, None]] = {}
    gates: dict[int, dict[str, None]] = {}
    for op in graph.ops:
        if isinstance(op.operation, Scale):
            for text, makers in _said(program, op, rounded.get(id(op.operation), 0)):
                gates.setdefault(id(op.operation), {})[text] = None
                for maker in makers:
                    layers.setdefault(id(maker.operation), {})[text] = None
    return Reasons(_joined(layers) | opaque, _joined(gates))


def _joined(texts: Mapping[int, Mapping[str, None]]) -> dict[int, str]:
    return {key: "; ".join(each) for key, each in texts.items()}


def _said(program: PrunedProgram, gate: Op, rounded: int) -> Iterator[tuple[str, list[Op]]]:
    """Yields what is to be said of a call of a gate, and of which layers."""
    everything = _units(gate, np.ones(gate.operation.factor.size, bool))
    dropped = _units(gate, gate.operation.factor == 0)
    if everything is None or dropped is None:
        return
    if rounded:
        earlier = on_the_way(program, gate, everything)
        text = f"{_removed(rounded)} came back for a multiple of round_to"
        yield text, _layers(program, [each for each in earlier if program.is_made(each)])
    if not dropped.those.any():
        return
    earlier = on_the_way(program, gate, dropped)
    made = [each for each in earlier if program.is_made(each) and program.has(each)]
    count = program.needs(dropped) or max(map(program.has, made), default=0)
    if count:
        culprits = {*behind(program, dropped), *before(program, gate, earlier)}
        if gate.shared and program.needs(dropped) and not program.is_read(dropped):
            culprits.add(f"'{gate.name}' (another call of this gate needs them)")
        text = f"{_removed(count)} kept for {', '.join(sorted(culprits))}"
        yield text, _layers(program, made)


def _removed(count: int) -> str:
    return f"{count} removed unit{'s' if count > 1 else ''}"


def _units(gate: Op, those: np.ndarray) -> Units | None:
    """Units behind a gate; of one over a whole tensor, all along some axis."""
    tensor, axis = gate.outputs[0], gate.operation.axis
    if axis is not None:
        return Units(tensor, axis % tensor.rank, those)
    axes = [axis for axis, size in enumerate(tensor.shape) if axis > 0 and size is not None]
    if not axes:
        return None
    return Units(tensor, axes[-1], np.repeat(those, tensor.shape[axes[-1]]))


def _layers(program: PrunedProgram, made: list[Units]) -> list[Op]:
    """The layers with weights that make units; of what has none, those that it reads."""
    found: dict[Op, None] = {}
    waiting, seen = [program.makers[units.tensor] for units in made], set()
    while waiting:
        op = waiting.pop(0)
        if op in seen:
            continue
        seen.add(op)
        if has_weights(op):
            found[op] = None
        if not (unit_axes(op) or (has_weights(op) and op in program.analysis.opaque)):
            makers = (program.makers.get(tensor) for tensor in op.inputs)
            waiting += [maker for maker in makers if maker is not None]
    return list(found)
