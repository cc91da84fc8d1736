"""What keeps units that a rule dropped: who still needs them, behind the gate and before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from keras_sbp.program import Analysis, Op, Program, Scale, Tensor
from keras_sbp.program.checks import ask_needs, ask_values
from keras_sbp.program.facts import unit_axes
from keras_sbp.program.handler import kind
from keras_sbp.program.units import Known, Needs, kept


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
        program: with decided gates.
        analysis: of the program.
        carried: tensor → units that the small network has; what it lacks is missing.
    """

    def __init__(
        self, program: Program, analysis: Analysis, carried: Mapping[Tensor, Needs]
    ) -> None:
        self.outputs = set(program.outputs)
        self.analysis, self.carried = analysis, carried
        self.makers = {tensor: op for op in program.ops for tensor in op.outputs}
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


_DEPEND = "the units that stay depend on them"
_SHARED = "another call of it needs them"
_GROUPS = "only whole groups of its units can go"


def behind(pruned: PrunedProgram, units: Units) -> Iterator[str]:
    """Yields what needs units behind a gate although they are constant there."""
    waiting, seen = [units], {(units.tensor, units.axis)}
    while waiting:
        units = waiting.pop()
        if units.tensor in pruned.outputs:
            yield "the output"
        for op, i in pruned.readers.get(units.tensor, ()):
            if not units.among(pruned.analysis.edges[op, i]):
                continue
            images = [image for image in _images(pruned, op, units) if pruned.needs(image)]
            needed = _needed_but_for(images, op, pruned)
            if not images or pruned.would_need(op, i, units, needed, pruned.known(op)):
                yield _what_needs_constants(pruned, op, i, units)
                yield from _opaque_near(pruned, op, behind=True)
            waiting += [image for image in images if (image.tensor, image.axis) not in seen]
            seen.update((image.tensor, image.axis) for image in images)


def before(pruned: PrunedProgram, gate: Op, earlier: list[Units]) -> Iterator[str]:
    """Yields what needs, or makes, units before the gate.

    Args:
        pruned: the pruned program.
        gate: the call of the gate.
        earlier: the units on their way to the gate; see `on_the_way`.
    """
    for units in earlier:
        if units.tensor in pruned.outputs:
            yield "the output, which is read before the gate"
        if units.tensor not in pruned.makers and not pruned.needs(units):
            yield "the input, whose signature stays"
        for op, i in pruned.readers.get(units.tensor, ()):
            if op.operation is gate.operation or not units.among(pruned.analysis.edges[op, i]):
                continue
            onwards = [each for each in earlier if each.tensor in op.outputs]
            if not any(map(pruned.is_read, onwards)):
                yield _what_reads(pruned, op, is_on_the_way=bool(onwards))
        maker = pruned.makers.get(units.tensor)
        if maker is None or pruned.is_read(units) or not pruned.has(units):
            continue
        if not any(map(pruned.has, pruned.made_of(maker, units))):
            yield _what_makes(pruned, maker, units)
            yield from _opaque_near(pruned, maker, behind=False)


def on_the_way(pruned: PrunedProgram, gate: Op, units: Units) -> list[Units]:
    """Returns units in front of a gate, and back from there to where they are made or come in."""
    found: list[Units] = []
    waiting = [Units(gate.inputs[0], units.axis, units.those)]
    while waiting:
        units = waiting.pop(0)
        if not any(units.tensor is each.tensor and units.axis == each.axis for each in found):
            found.append(units)
            op = pruned.makers.get(units.tensor)
            waiting += [] if op is None else pruned.made_of(op, units)
    return found


def _opaque_near(pruned: PrunedProgram, op: Op, *, behind: bool) -> Iterator[str]:
    """Yields the opaque ops behind, or before, an op with nothing but operations between.

    The op may be unable to lose units, and these would need, or make, them if it were.
    """
    waiting, seen = [op], {op}
    while waiting:
        op = waiting.pop()
        if has_weights(op) or op in pruned.analysis.opaque:
            continue
        if behind:
            near = [reader for t in op.outputs for reader, _ in pruned.readers.get(t, ())]
        else:
            near = [pruned.makers[t] for t in op.inputs if t in pruned.makers]
        for each in near:
            if each not in seen:
                seen.add(each)
                waiting.append(each)
                if each in pruned.analysis.opaque:
                    yield pruned.opaque(each)


def _images(pruned: PrunedProgram, op: Op, units: Units) -> Iterator[Units]:
    """Yields what is constant behind an op because these units are."""
    if isinstance(op.operation, Scale):  # another gate may make them 0 once more
        constant = pruned.analysis.known[op.outputs[0]].get(units.axis)
        if constant is not None and not np.isnan(constant[units.those]).all():
            yield Units(op.outputs[0], units.axis, units.those & ~np.isnan(constant))
        return
    known = pruned.known(op)
    less = [
        _without(each, units) if tensor is units.tensor else each
        for tensor, each in zip(op.inputs, known, strict=True)
    ]
    handler = pruned.analysis.handlers[op]
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


def _needed_but_for(images: list[Units], op: Op, pruned: PrunedProgram) -> list[Needs | None]:
    """What is needed of an op beside some units."""
    needed = dict(zip(op.outputs, pruned.needed(op), strict=True))
    for image in images:
        needs = needed[image.tensor]
        if needs is not None:
            left = kept(needs, image.axis, image.those.size) & ~image.those
            needed[image.tensor] = needs | {image.axis: left} if left.any() else None
    return list(needed.values())


def _what_reads(pruned: PrunedProgram, op: Op, *, is_on_the_way: bool) -> str:
    """Names an op that needs units before the gate."""
    if op in pruned.analysis.opaque:
        return pruned.opaque(op)
    if isinstance(op.operation, Scale):
        return f"'{op.name}' (another gate, which keeps them)"
    if not is_on_the_way:
        return f"'{op.name}' ({kind(op)}: it reads them before the gate)"
    why = _SHARED if op.shared else _DEPEND
    return f"'{op.name}' ({kind(op)}: {why})"


def _what_makes(pruned: PrunedProgram, op: Op, units: Units) -> str:
    """Names an op that makes units although nothing needs them."""
    if op in pruned.analysis.opaque:
        return pruned.opaque(op)
    if op.shared:
        return f"'{op.name}' ({kind(op)}: {_SHARED})"
    one = Units(units.tensor, units.axis, np.arange(units.those.size) == 0)
    needs = [needs or {} for needs in pruned.needs_of(op, one)]
    parts = any(not keep.all() for each in needs for keep in each.values())
    why = _GROUPS if parts and not unit_axes(op) else _DEPEND
    return f"'{op.name}' ({kind(op)}: {why})"


def _what_needs_constants(pruned: PrunedProgram, op: Op, i: int, units: Units) -> str:
    """Names an op that needs constant units, and what about it does."""
    if op in pruned.analysis.opaque:
        return pruned.opaque(op)
    why = _why_constants(pruned, op, i, units)
    return f"'{op.name}' ({kind(op)}: {why})"


def _why_constants(pruned: PrunedProgram, op: Op, i: int, units: Units) -> str:
    known, size = pruned.known(op), units.those.size
    keep = kept(pruned.analysis.edges[op, i], units.axis, size)
    constant = known[i][units.axis][units.those]
    if len(op.inputs) == 1 and constant.any() and _pads(op):
        return "the units are constants other than 0, and it pads with 0"
    if len(set(op.inputs)) > 1:
        return "its other inputs vary there"
    zeros = known[i] | {units.axis: np.where(units.those, 0.0, known[i][units.axis])}
    if not pruned.would_need(op, i, units, pruned.needed(op), [zeros]):
        if constant.any():
            return "the units are constants other than 0"
        return _SHARED
    if keep.sum() == 1:
        return "it must read one unit at least"
    fewest = min(_needed_for_one(pruned, op, i, units), default=units.those.size)
    if fewest == units.those.size:
        return "it needs all of its units"
    return "constants do not pass it" if fewest < 2 else _GROUPS


def _needed_for_one(pruned: PrunedProgram, op: Op, i: int, units: Units) -> Iterator[int]:
    """Yields how many of an input's units an op needs for one unit, along each axis it makes."""
    for tensor in op.outputs:
        for axis, size in enumerate(tensor.shape):
            if axis > 0 and size is not None and size > 1:
                one = Units(tensor, axis, np.arange(size) == 0)
                needs = pruned.needs_of(op, one)[i]
                every = Units(units.tensor, units.axis, np.ones_like(units.those))
                yield every.among(needs)


def _pads(op: Op) -> bool:
    return getattr(op.operation, "padding", "valid") != "valid"
