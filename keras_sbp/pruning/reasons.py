"""Why a layer is opaque, or kept more units than its gate asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from keras_sbp.graph import Analysis, Graph, Op, Scale, Tensor
from keras_sbp.graph.handler import kind
from keras_sbp.graph.units import Known, Needs, kept

Readers = dict[Tensor, list[tuple[Op, Needs]]]


def reasons(graph: Graph, analysis: Analysis) -> dict[int, str]:
    """Returns the reasons by the operation's id; layers without one are missing."""
    found = {id(op.operation): f"opaque: {why}" for op, why in analysis.opaque.items()}
    producers = {tensor: op for op in graph.ops for tensor in op.outputs}
    readers: Readers = {}
    for (op, i), needs in analysis.edges.items():
        readers.setdefault(op.inputs[i], []).append((op, needs))
    for op in graph.ops:
        if not isinstance(op.operation, Scale):
            continue
        chain = _chain(op, producers)
        if not _has_weights(chain[-1]):
            continue
        count, blamed = _behind(op, graph, analysis, readers)
        if not count:
            count, blamed = _before(op, chain, graph, analysis, readers)
        if count:
            text = f"{count} removed units kept for {', '.join(sorted(blamed))}"
            found.setdefault(id(chain[-1].operation), text)
    return found


def _has_weights(op: Op) -> bool:
    return bool(getattr(op.operation, "weights", ()))


def _chain(gate: Op, producers: Mapping[Tensor, Op]) -> list[Op]:
    """The calls from a gate back to the layer with weights that produces what it multiplies."""
    chain = [gate]
    while not _has_weights(chain[-1]) and chain[-1].inputs:
        producer = producers.get(chain[-1].inputs[0])
        if producer is None:
            break
        chain.append(producer)
    return chain


def _behind(gate: Op, graph: Graph, analysis: Analysis, readers: Readers) -> tuple[int, set[str]]:
    """How many constant units are needed behind a gate, and the calls that need them."""
    first = gate.outputs[0]
    count = _constants(analysis.known[first], analysis.needed.get(first))
    if not count:
        return 0, set()
    blamed: set[str] = set()
    waiting, seen = [first], {first}
    while waiting:
        tensor = waiting.pop()
        if tensor in graph.outputs:
            blamed.add("the output")
        for op, needs in readers.get(tensor, []):
            if not _constants(analysis.known[tensor], needs):
                continue
            onwards = [
                t for t in op.outputs if _constants(analysis.known[t], analysis.needed.get(t))
            ]
            if not onwards:
                blamed.add(_describe(op, tensor, analysis))
            waiting += [t for t in onwards if t not in seen]
            seen.update(onwards)
    return count, blamed


def _constants(known: Known, needs: Needs | None) -> int:
    """How many constant units are needed, along the axis that has most of them."""
    if needs is None:
        return 0
    counts = [
        int((~np.isnan(constant) & kept(needs, axis, constant.size)).sum())
        for axis, constant in known.items()
    ]
    return max(counts, default=0)


def _describe(op: Op, tensor: Tensor, analysis: Analysis) -> str:
    """Names a call, and what about it needs constant units."""
    name = f"'{op.name}'"
    if op in analysis.opaque:
        return f"{name} (opaque {kind(op)})"
    constants = [c[~np.isnan(c)] for c in analysis.known[tensor].values()]
    if len(op.inputs) == 1 and any(c.any() for c in constants) and _pads(op):
        return f"{name} ({kind(op)}: the units are constants other than 0, and it pads with 0)"
    if len(set(op.inputs)) > 1:
        return f"{name} ({kind(op)}: its other inputs vary there)"
    return f"{name} ({kind(op)})"


def _pads(op: Op) -> bool:
    padding = getattr(op.operation, "padding", "valid")
    return padding != "valid"


def _before(
    gate: Op,
    chain: list[Op],
    graph: Graph,
    analysis: Analysis,
    readers: Readers,
) -> tuple[int, set[str]]:
    """How many removed units others read before the gate, and who."""
    axis = gate.operation.axis
    factor = gate.operation.factor
    count, blamed = 0, set()
    for reader, tensor in _links(chain):
        own_axis = None if axis is None else axis % tensor.rank
        if own_axis is None or tensor.shape[own_axis] != factor.size:
            break
        needs = analysis.needed.get(tensor)
        if needs is None:
            continue
        count = max(count, int((kept(needs, own_axis, factor.size) & (factor == 0)).sum()))
        others = [op for op, _ in readers.get(tensor, []) if op is not reader]
        blamed |= {f"'{op.name}' ({kind(op)}: it reads them before the gate)" for op in others}
        if tensor in graph.outputs:
            blamed.add("the output, which is read before the gate")
    return (count, blamed) if blamed else (0, set())


def _links(chain: list[Op]) -> Iterator[tuple[Op, Tensor]]:
    """Each call of a chain with the tensor that it reads."""
    for op in chain[:-1]:
        yield op, op.inputs[0]
