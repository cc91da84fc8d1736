"""Fills the report from the programs before and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_sbp._keras import input_layer
from keras_sbp.insertion.place_units import units_of
from keras_sbp.layers import find_gates
from keras_sbp.program import Analysis, Op, Program, Scale, Tensor, macs, read
from keras_sbp.program.constants import computed_constants, constant_tensors
from keras_sbp.program.facts import unit_axes
from keras_sbp.program.program import Constant
from keras_sbp.program.rebuild import Rebuilt
from keras_sbp.program.units import Needs, kept
from keras_sbp.pruning.culprits import PrunedProgram, Units, before, behind, has_weights, on_the_way
from keras_sbp.pruning.decide import Decisions
from keras_sbp.pruning.report import GateReport, LayerReport, PruneReport
from keras_sbp.pruning.verify import Verification

NOTHING_DECIDED = (
    "no unit was up for decision: the model has no gates, and the rule decides from these; "
    "insert_sbp() puts them in, to be trained, and rules such as L1Norm() need none"
)


def summarise(
    program: Program,
    analysis: Analysis,
    rebuilt: Rebuilt,
    decisions: Decisions,
    verified: Verification | None,
) -> PruneReport:
    """Returns the report on a pruned program; see `PruneReport`.

    Args:
        program: the program, with decided gates.
        analysis: of the program.
        rebuilt: the small network.
        decisions: what the rule keeps, and what was kept: no less than that.
        verified: what verification saw; None where there was none.
    """
    after = read(rebuilt.model)
    macs_before, macs_after = _macs_by_layer(program), _macs_by_layer(after)
    shapes_after = {id(op.operation): op.outputs[0].shape for op in after.ops}
    scales = dict.fromkeys(op.operation for op in program.ops if isinstance(op.operation, Scale))
    came_back = [
        int(kept.sum() - decisions.asked[gate].sum()) for gate, kept in decisions.keep.items()
    ]
    rounded = dict(zip(map(id, scales), came_back, strict=True))
    said = reasons(program, analysis, rebuilt.carried, rounded)
    why = said.layers | _why_constants_are_computed(program, analysis)
    constant = constant_tensors(program, analysis)
    inputs = zip(keras.tree.flatten(program.input_structure), program.inputs, strict=True)
    rows = [_input_row(x, tensor, analysis) for x, tensor in inputs]
    behind = _followed(program, analysis, [row.name for row in rows])
    seen: set[int] = set()
    for op in program.ops:
        old = op.operation
        if id(old) in seen:
            continue
        seen.add(id(old))
        if not getattr(old, "weights", ()):
            if op in analysis.opaque and analysis.is_live(op):
                rows.append(LayerReport(op.name, 0, 0, 0, 0, 0, 0, why[id(old)]))
            continue
        new = rebuilt.layers.get(id(old))
        rows.append(
            LayerReport(
                name=op.name,
                units_before=units_of(old, op.outputs[0].shape),
                units_after=units_of(old, shapes_after.get(id(new), (None, 0))),
                params_before=old.count_params(),
                params_after=0 if new is None else new.count_params(),
                macs_before=macs_before[id(old)],
                macs_after=macs_after.get(id(new), 0),
                reason=_why_gone(op, constant) if new is None else why.get(id(old), ""),
                behind=behind.get(op, ""),
            )
        )
    rows += _constant_rows(program, rebuilt.layers)
    rows += _products_row(program, after)
    gates = [
        _gate_row(scale, keep, decisions.unranked[gate], said.gates.get(id(scale), ""))
        for scale, (gate, keep) in zip(scales, decisions.keep.items(), strict=True)
    ]
    gated = bool(find_gates(program.model))
    return PruneReport(
        tuple(rows),
        tuple(gates),
        max_abs_error=verified.max_abs_error if verified else None,
        compared=verified.inputs if verified else (),
        variation=verified.variation if verified else None,
        gated=gated,
        reason="" if gates or gated else NOTHING_DECIDED,
    )


def _gate_row(scale: Scale, keep: np.ndarray, unranked: int, why: str) -> GateReport:
    reasons = [why] if why else []
    if unranked:
        units = "1 unit stays" if unranked == 1 else f"{unranked} units stay"
        reasons.append(f"{units}, as the rule knows nothing of what they are worth")
    return GateReport(scale.name, keep.size, int(keep.sum()), "; ".join(reasons))


def _followed(program: Program, analysis: Analysis, inputs: list[str]) -> dict[Op, str]:
    """For each call that only passes units on: the layer or input that they are from.

    Where several layers write the units, as in front of a normalisation in a residual network, it
    is the last of them.
    """
    order = dict.fromkeys(inputs, -1)
    source = dict(zip(program.inputs, inputs, strict=True))
    found = {}
    for number, op in enumerate(program.ops):
        passed_on = [source[tensor] for tensor in op.inputs]
        same_shape = [t.shape for t in op.inputs] == [t.shape for t in op.outputs]
        makes_units = not passed_on or (
            bool(getattr(op.operation, "weights", ()))
            and (op in analysis.opaque or unit_axes(op) or not same_shape)
        )
        name = op.name if makes_units else max(passed_on, key=order.__getitem__)
        order.setdefault(name, number)
        source |= dict.fromkeys(op.outputs, name)
        if not makes_units:
            found[op] = name
    return found


def _why_gone(op: Op, constant: set[Tensor]) -> str:
    if op.outputs[0] in constant:
        return "removed: what it computes is constant"
    return "removed: nothing needs it"


def _why_constants_are_computed(program: Program, analysis: Analysis) -> dict[int, str]:
    computed = computed_constants(program, analysis)
    return {
        id(op.operation): f"computes a constant that is not stored: {why}"
        for op, why in computed.items()
    }


def _constant_rows(program: Program, new_layers: Mapping[int, Any]) -> list[LayerReport]:
    """One row for each constant that is stored in place of what computed it."""
    rows = []
    for op in program.ops:
        new = new_layers.get(id(op.operation))
        if isinstance(op.operation, Constant) and new is not None:
            reason = f"added: the constant that '{op.name}' computed"
            rows.append(LayerReport(new.name, 0, 0, 0, new.count_params(), 0, 0, reason))
    return rows


def _products_row(before: Program, after: Program) -> list[LayerReport]:
    """One row for the products of two tensors, such as attention, if there are any."""

    def total(program: Program) -> int:
        return sum(macs(op) for op in program.ops if not getattr(op.operation, "weights", ()))

    if not total(before):
        return []
    return [LayerReport("(products without weights)", 0, 0, 0, 0, total(before), total(after))]


def _macs_by_layer(program: Program) -> dict[int, int]:
    totals: dict[int, int] = {}
    for op in program.ops:
        totals[id(op.operation)] = totals.get(id(op.operation), 0) + macs(op)
    return totals


def _input_row(x: keras.KerasTensor, tensor: Tensor, analysis: Analysis) -> LayerReport:
    needs = analysis.needed.get(tensor)
    axis = next(iter(needs or {}), tensor.rank - 1)
    size = tensor.shape[axis] or 0
    keep = np.zeros(size, bool) if needs is None else kept(needs, axis, size)
    return LayerReport(
        name=input_layer(x).name,
        units_before=size,
        units_after=int(keep.sum()),
        params_before=0,
        params_after=0,
        macs_before=0,
        macs_after=0,
        reason="nothing reads it; its signature stays" if needs is None else "",
        keep=tuple(keep.tolist()),
        axis=axis,
    )


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
    program: Program,
    analysis: Analysis,
    carried: Mapping[Tensor, Needs],
    rounded: Mapping[int, int],
) -> Reasons:
    """Returns why operations are opaque, and why units are there that a rule dropped.

    Args:
        program: a program with decided gates.
        analysis: of the program.
        carried: tensor → units that the small network has; what it lacks is missing.
        rounded: by the id of a decided gate: how many dropped units came back for `round_to`.
    """
    pruned = PrunedProgram(program, analysis, carried)
    opaque = {id(op.operation): f"opaque: {why}" for op, why in analysis.opaque.items()}
    layers: dict[int, dict[str, None]] = {}
    gates: dict[int, dict[str, None]] = {}
    for op in program.ops:
        if isinstance(op.operation, Scale):
            for text, makers in _said(pruned, op, rounded.get(id(op.operation), 0)):
                gates.setdefault(id(op.operation), {})[text] = None
                for maker in makers:
                    layers.setdefault(id(maker.operation), {})[text] = None
    return Reasons(_joined(layers) | opaque, _joined(gates))


def _joined(texts: Mapping[int, Mapping[str, None]]) -> dict[int, str]:
    return {key: "; ".join(each) for key, each in texts.items()}


def _said(pruned: PrunedProgram, gate: Op, rounded: int) -> Iterator[tuple[str, list[Op]]]:
    """Yields what is to be said of a call of a gate, and of which layers."""
    everything = _units(gate, np.ones(gate.operation.factor.size, bool))
    dropped = _units(gate, gate.operation.factor == 0)
    if everything is None or dropped is None:
        return
    if rounded:
        earlier = on_the_way(pruned, gate, everything)
        text = f"{_removed(rounded)} came back for a multiple of round_to"
        yield text, _layers(pruned, [each for each in earlier if pruned.is_made(each)])
    if not dropped.those.any():
        return
    earlier = on_the_way(pruned, gate, dropped)
    made = [each for each in earlier if pruned.is_made(each) and pruned.has(each)]
    count = pruned.needs(dropped) or max(map(pruned.has, made), default=0)
    if count:
        culprits = {*behind(pruned, dropped), *before(pruned, gate, earlier)}
        if gate.shared and pruned.needs(dropped) and not pruned.is_read(dropped):
            culprits.add(f"'{gate.name}' (another call of this gate needs them)")
        text = f"{_removed(count)} kept for {', '.join(sorted(culprits))}"
        yield text, _layers(pruned, made)


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
    return Units(tensor, axes[-1], np.repeat(those, tensor.size(axes[-1])))


def _layers(pruned: PrunedProgram, made: list[Units]) -> list[Op]:
    """The layers with weights that make units; of what has none, those that it reads."""
    found: dict[Op, None] = {}
    waiting, seen = [pruned.makers[units.tensor] for units in made], set()
    while waiting:
        op = waiting.pop(0)
        if op in seen:
            continue
        seen.add(op)
        if has_weights(op):
            found[op] = None
        if not (unit_axes(op) or (has_weights(op) and op in pruned.analysis.opaque)):
            makers = (pruned.makers.get(tensor) for tensor in op.inputs)
            waiting += [maker for maker in makers if maker is not None]
    return list(found)
