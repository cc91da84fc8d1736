"""What keeps units that a rule dropped: who still needs them, behind the gate and before it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keras_sbp.graph import Op, Scale
from keras_sbp.graph.checks import ask_values
from keras_sbp.graph.facts import unit_axes
from keras_sbp.graph.handler import kind
from keras_sbp.graph.units import Known, Needs, kept
from keras_sbp.pruning.pruned_program import PrunedProgram, Units, has_weights

_DEPEND = "the units that stay depend on them"
_SHARED = "another call of it needs them"
_GROUPS = "only whole groups of its units can go"


def behind(program: PrunedProgram, units: Units) -> Iterator[str]:
    """Yields what needs units behind a gate although they are constant there."""
    waiting, seen = [units], {(units.tensor, units.axis)}
    while waiting:
        units = waiting.pop()
        if units.tensor in program.outputs:
            yield "the output"
        for op, i in program.readers.get(units.tensor, ()):
            if not units.among(program.analysis.edges[op, i]):
                continue
            images = [image for image in _images(program, op, units) if program.needs(image)]
            needed = _needed_but_for(images, op, program)
            if not images or program.would_need(op, i, units, needed, program.known(op)):
                yield _what_needs_constants(program, op, i, units)
                yield from _opaque_near(program, op, behind=True)
            waiting += [image for image in images if (image.tensor, image.axis) not in seen]
            seen.update((image.tensor, image.axis) for image in images)


def before(program: PrunedProgram, gate: Op, earlier: list[Units]) -> Iterator[str]:
    """Yields what needs, or makes, units before the gate.

    Args:
        program: the pruned program.
        gate: the call of the gate.
        earlier: the units on their way to the gate; see `on_the_way`.
    """
    for units in earlier:
        if units.tensor in program.outputs:
            yield "the output, which is read before the gate"
        if units.tensor not in program.makers and not program.needs(units):
            yield "the input, whose signature stays"
        for op, i in program.readers.get(units.tensor, ()):
            if op.operation is gate.operation or not units.among(program.analysis.edges[op, i]):
                continue
            onwards = [each for each in earlier if each.tensor in op.outputs]
            if not any(map(program.is_read, onwards)):
                yield _what_reads(program, op, is_on_the_way=bool(onwards))
        op = program.makers.get(units.tensor)
        if op is None or program.is_read(units) or not program.has(units):
            continue
        if not any(map(program.has, program.made_of(op, units))):
            yield _what_makes(program, op, units)
            yield from _opaque_near(program, op, behind=False)


def on_the_way(program: PrunedProgram, gate: Op, units: Units) -> list[Units]:
    """Returns units in front of a gate, and back from there to where they are made or come in."""
    found: list[Units] = []
    waiting = [Units(gate.inputs[0], units.axis, units.those)]
    while waiting:
        units = waiting.pop(0)
        if not any(units.tensor is each.tensor and units.axis == each.axis for each in found):
            found.append(units)
            op = program.makers.get(units.tensor)
            waiting += [] if op is None else program.made_of(op, units)
    return found


def _opaque_near(program: PrunedProgram, op: Op, *, behind: bool) -> Iterator[str]:
    """Yields the opaque ops behind, or before, an op with nothing but operations between.

    The op may be unable to lose units, and these would need, or make, them if it were.
    """
    waiting, seen = [op], {op}
    while waiting:
        op = waiting.pop()
        if has_weights(op) or op in program.analysis.opaque:
            continue
        if behind:
            near = [reader for t in op.outputs for reader, _ in program.readers.get(t, ())]
        else:
            near = [program.makers[t] for t in op.inputs if t in program.makers]
        for each in near:
            if each not in seen:
                seen.add(each)
                waiting.append(each)
                if each in program.analysis.opaque:
                    yield program.opaque(each)


def _images(program: PrunedProgram, op: Op, units: Units) -> Iterator[Units]:
    """Yields what is constant behind an op because these units are."""
    if isinstance(op.operation, Scale):  # another gate may make them 0 once more
        constant = program.analysis.known[op.outputs[0]].get(units.axis)
        if constant is not None and not np.isnan(constant[units.those]).all():
            yield Units(op.outputs[0], units.axis, units.those & ~np.isnan(constant))
        return
    known = program.known(op)
    less = [
        _without(each, units) if tensor is units.tensor else each
        for tensor, each in zip(op.inputs, known, strict=True)
    ]
    handler = program.analysis.handlers[op]
    answers = [ask_values(handler, op, each) for each in (less, known)]
    for tensor, old, new in zip(op.outputs, *answers, strict=True):
        for axis, constant in new.items():
            fresh = ~np.isnan(constant)
            if axis in old:
                fresh &= np.isnan(old[axis])
            if fresh.any():
                yield Units(tensor, axis, fresh)


def _without(known: Known, units: Units) -> Known:
    """What would be known if the units varied."""
    if units.those.all():
        return {}
    return known | {units.axis: np.where(units.those, np.nan, known[units.axis])}


def _needed_but_for(images: list[Units], op: Op, program: PrunedProgram) -> list[Needs | None]:
    """What is needed of an op beside some units."""
    needed = dict(zip(op.outputs, program.needed(op), strict=True))
    for image in images:
        needs = needed[image.tensor]
        if needs is not None:
            left = kept(needs, image.axis, image.those.size) & ~image.those
            needed[image.tensor] = needs | {image.axis: left} if left.any() else None
    return list(needed.values())


def _what_reads(program: PrunedProgram, op: Op, *, is_on_the_way: bool) -> str:
    """Names an op that needs units before the gate."""
    if op in program.analysis.opaque:
        return program.opaque(op)
    if isinstance(op.operation, Scale):
        return f"'{op.name}' (another gate, which keeps them)"
    if not is_on_the_way:
        return f"'{op.name}' ({kind(op)}: it reads them before the gate)"
    why = _SHARED if op.shared else _DEPEND
    return f"'{op.name}' ({kind(op)}: {why})"


def _what_makes(program: PrunedProgram, op: Op, units: Units) -> str:
    """Names an op that makes units although nothing needs them."""
    if op in program.analysis.opaque:
        return program.opaque(op)
    if op.shared:
        return f"'{op.name}' ({kind(op)}: {_SHARED})"
    one = Units(units.tensor, units.axis, np.arange(units.those.size) == 0)
    needs = [needs or {} for needs in program.needs_of(op, one)]
    parts = any(not keep.all() for each in needs for keep in each.values())
    why = _GROUPS if parts and not unit_axes(op) else _DEPEND
    return f"'{op.name}' ({kind(op)}: {why})"


def _what_needs_constants(program: PrunedProgram, op: Op, i: int, units: Units) -> str:
    """Names an op that needs constant units, and what about it does."""
    if op in program.analysis.opaque:
        return program.opaque(op)
    why = _why_constants(program, op, i, units)
    return f"'{op.name}' ({kind(op)}: {why})"


def _why_constants(program: PrunedProgram, op: Op, i: int, units: Units) -> str:
    known, size = program.known(op), units.those.size
    keep = kept(program.analysis.edges[op, i], units.axis, size)
    constant = known[i][units.axis][units.those]
    if len(op.inputs) == 1 and constant.any() and _pads(op):
        return "the units are constants other than 0, and it pads with 0"
    if len(set(op.inputs)) > 1:
        return "its other inputs vary there"
    zeros = known[i] | {units.axis: np.where(units.those, 0.0, known[i][units.axis])}
    if not program.would_need(op, i, units, program.needed(op), [zeros]):
        if constant.any():
            return "the units are constants other than 0"
        return _SHARED
    if keep.sum() == 1:
        return "it must read one unit at least"
    fewest = min(_needed_for_one(program, op, i, units), default=units.those.size)
    if fewest == units.those.size:
        return "it needs all of its units"
    return "constants do not pass it" if fewest < 2 else _GROUPS


def _needed_for_one(program: PrunedProgram, op: Op, i: int, units: Units) -> Iterator[int]:
    """Yields how many of an input's units an op needs for one unit, along each axis it makes."""
    for tensor in op.outputs:
        for axis, size in enumerate(tensor.shape):
            if axis > 0 and size is not None and size > 1:
                one = Units(tensor, axis, np.arange(size) == 0)
                needs = program.needs_of(op, one)[i]
                every = Units(units.tensor, units.axis, np.ones_like(units.those))
                yield every.among(needs)


def _pads(op: Op) -> bool:
    return getattr(op.operation, "padding", "valid") != "valid"
