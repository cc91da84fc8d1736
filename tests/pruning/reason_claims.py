"""What must be true of the reasons in any report."""

from __future__ import annotations

import re
from collections import Counter

import keras

from keras_sbp.insertion.place_units import place_existing_gates
from keras_sbp.layers import SBPLayer
from keras_sbp.program import Op, Program, trace
from keras_sbp.program.removal import Trials
from keras_sbp.pruning import PruneReport


def assert_reasons(model: keras.Model, report: PruneReport) -> int:
    """Where a layer has more units than its gate kept, both rows say why; returns how often.

    Which layer makes a gate's units is known from elsewhere: from the placement of gates.
    """
    program = trace(model)
    names = {without_number(op.name) for op in program.ops}
    gates = dict.fromkeys(op.operation for op in program.ops if isinstance(op.operation, SBPLayer))
    gates = dict(zip(gates, report.gates, strict=True))
    rows = {row.name: row for row in report.layers}
    unique = Counter(row.name for row in report.layers)
    reasons = [row.reason for row in (*report.layers, *report.gates)]
    assert_complete(reasons, names)
    found = 0
    placements = place_existing_gates(Trials(program))
    for gate, placement in placements.items():
        for producer in in_front(gate, set(placement.producers), program):
            row, kept = rows[producer.name], gates[gate]
            is_clear = row.units_before == kept.units_before and unique[row.name] == 1
            if is_clear and row.units_after > kept.units_after:
                assert row.reason and kept.reason, (row, kept)
                found += 1
    return found


def in_front(gate: SBPLayer, producers: set[Op], program: Program) -> set[Op]:
    """Those of the producers that a gate reads, directly or through what is none of them."""
    makers = {tensor: op for op in program.ops for tensor in op.outputs}
    waiting = [op for op in program.ops if op.operation is gate]
    found, seen = set(), set()
    while waiting:
        op = waiting.pop()
        if op in producers:
            found.add(op)
        elif op not in seen:
            seen.add(op)
            waiting += [makers[tensor] for tensor in op.inputs if tensor in makers]
    return found


def assert_complete(reasons: list[str], names: set[str]) -> None:
    """Names are of calls in the model; nothing is empty or cut."""
    for reason in reasons:
        assert not re.search(r"kept for ?(;|$)|…|\.\.\.", reason), reason
        assert reason.count("(") == reason.count(")"), reason
        for each in re.findall(r"\d+ removed units? kept for (.*?)(?:; |$)", reason):
            named = re.findall(r"'([^']+)' \(", each)
            assert named or each.startswith(("the input", "the output")), reason
            assert names.issuperset(map(without_number, named)), (reason, names)


def without_number(name: str) -> str:
    """Operations inside of a layer get new numbers each time that it is unfolded."""
    return re.sub(r"_\d+$", "", name)
