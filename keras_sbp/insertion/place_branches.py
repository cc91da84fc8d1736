"""Gates for whole residual branches: where such a gate keeps nothing, the branch disappears."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from keras_sbp.insertion.gates import Gate
from keras_sbp.insertion.plan import Placement, Plan, Refusal
from keras_sbp.program import Op, Tensor, macs
from keras_sbp.program.removal import Edge, Site, Trials
from keras_sbp.program.units import Known, constant_everywhere, wholly_constant


def place_branch_gates(trials: Trials) -> Plan:
    """Returns one gate for each residual branch.

    Where tensors are added, the operand that is reached from their common ancestor with the
    fewest multiply-accumulates is the shortcut; the others are branches.
    """
    ops = trials.program.ops
    makers = {tensor: op for op in ops for tensor in op.outputs}
    plan = Plan()
    for op in ops:
        for number in _branches(op, trials, makers):
            dying = _dying({(op, number)}, trials, makers)
            producers = [each for each in dying if macs(each) > 0]
            if not producers:
                continue
            gate = _gate_of(op.inputs[number], makers)
            if gate is not None:
                plan.refusals.append(Refusal(producers, f"gate '{gate.name}' is there already"))
                continue
            site = Site(op.inputs[number], axis=None)
            name = f"{producers[-1].name}_branch_gate"
            plan.placements.append(Placement(name, [*producers, op], [site], None, dying))
    return plan


def place_existing_branch_gates(trials: Trials) -> dict[Gate, Placement]:
    """Returns what each gate over a whole tensor governs that a program has."""
    ops = trials.program.ops
    makers = {tensor: op for op in ops for tensor in op.outputs}
    found: dict[Gate, Placement] = {}
    for op in ops:
        gate = op.operation
        edges = set(trials.readers.get(op.outputs[0], ()))
        if isinstance(gate, Gate) and gate.axis is None and edges:
            dying = _dying(edges, trials, makers)
            site = Site(op.outputs[0], axis=None)
            earlier = found.get(gate)
            sites, ops = (earlier.sites, earlier.ops) if earlier else ([], [])
            found[gate] = Placement(gate.name, [], [*sites, site], None, [*ops, *dying])
    return found


def _gate_of(tensor: Tensor, makers: Mapping[Tensor, Op]) -> Op | None:
    """The gate over the whole tensor that a branch ends with, maybe before other gates."""
    op = makers.get(tensor)
    while op is not None and isinstance(op.operation, Gate):
        if op.operation.axis is None:
            return op
        op = makers.get(op.inputs[0])
    return None


def _branches(op: Op, trials: Trials, makers: Mapping[Tensor, Op]) -> list[int]:
    """The numbers of the operands that are residual branches."""
    alike = {tensor.shape for tensor in [*op.inputs, *op.outputs]}
    if len(set(op.inputs)) < 2 or len(set(op.inputs)) < len(op.inputs) or len(alike) > 1:
        return []
    if not all(_vanishes(op, number, trials) for number in range(len(op.inputs))):
        return []
    costs = _costs_from_common_ancestor(op.inputs, trials, makers)
    return [i for i, cost in enumerate(costs) if cost > min(costs)]


def _vanishes(op: Op, number: int, trials: Trials) -> bool:
    """Tells whether an operand that is 0 leaves the others, and is needed no more."""
    known: list[Known] = [{} for _ in op.inputs]
    known[number] = constant_everywhere(0.0, op.inputs[number].shape)
    handler = trials.handlers[op]
    if any(wholly_constant(each) is not None for each in handler.values(op, known)):
        return False
    return handler.needs(op, [{} for _ in op.outputs], known)[number] is None


def _costs_from_common_ancestor(
    operands: Sequence[Tensor], trials: Trials, makers: Mapping[Tensor, Op]
) -> list[int]:
    """For each operand, the multiply-accumulates on the cheapest path from the last tensor that
    all are computed from. Empty if there is none.
    """
    costs: dict[Tensor, dict[int, int]] = {t: {i: 0} for i, t in enumerate(operands)}
    numbers = {tensor: i for i, tensor in enumerate(operands)}  # breaks ties in the heap

    def entry(tensor: Tensor) -> tuple[int, int, Tensor]:
        number = trials.order[makers[tensor]] if tensor in makers else -1
        return -number, numbers.setdefault(tensor, len(numbers)), tensor

    heap = [entry(tensor) for tensor in operands]
    heapq.heapify(heap)
    while heap:
        tensor = heapq.heappop(heap)[-1]
        here = costs[tensor]
        if len(here) == len(operands):
            return [here[i] for i in range(len(operands))]
        if tensor not in makers:
            continue
        op = makers[tensor]
        for before in op.inputs:
            if before not in costs:
                heapq.heappush(heap, entry(before))
            reached = costs.setdefault(before, {})
            for i, cost in here.items():
                reached[i] = min(cost + macs(op), reached.get(i, cost + macs(op)))
    return []


def _dying(edges: set[Edge], trials: Trials, makers: Mapping[Tensor, Op]) -> list[Op]:
    """The ops that nobody needs if these readers of one tensor do not need it, in order."""
    outputs = set(trials.program.outputs)
    dead = set(edges)
    reader, number = next(iter(edges))
    first = makers[reader.inputs[number]]
    heap, waiting, dying = [-trials.order[first]], {-trials.order[first]: first}, []
    while heap:
        op = waiting[heapq.heappop(heap)]
        readers = [edge for tensor in op.outputs for edge in trials.readers.get(tensor, ())]
        if outputs & set(op.outputs) or not dead.issuperset(readers):
            continue
        dying.append(op)
        dead.update((op, i) for i in range(len(op.inputs)))
        for tensor in op.inputs:
            number = -trials.order[makers[tensor]] if tensor in makers else 1
            if number <= 0 and number not in waiting:
                waiting[number] = makers[tensor]
                heapq.heappush(heap, number)
    return dying[::-1]
