"""The two analyses of a program: what is known, forward; what is needed, backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from keras_sbp.program.checks import ask_needs, ask_values
from keras_sbp.program.handler import OPAQUE, LayerHandler, find_handler
from keras_sbp.program.program import Op, Program, Tensor
from keras_sbp.program.units import Known, Needs, same, union


@dataclass
class Analysis:
    """What is true of every tensor of a program.

    Attributes:
        handlers: op → the handler that answers for it.
        opaque: op → why it is opaque; only opaque ops are there.
        known: tensor → constants along its axes.
        needed: tensor → units that must be there; tensors that nobody needs are missing.
        edges: (op, input number) → units that this op needs of this input; inputs that the op
            does not need, and ops that nobody needs, are missing.
    """

    handlers: dict[Op, LayerHandler]
    opaque: dict[Op, str]
    known: dict[Tensor, Known]
    needed: dict[Tensor, Needs]
    edges: dict[tuple[Op, int], Needs]

    def is_live(self, op: Op) -> bool:
        """Tells whether anything that the op computes is needed."""
        return any(tensor in self.needed for tensor in op.outputs)


def analyse(program: Program) -> Analysis:
    """Runs both analyses; cost is linear in the size of the program."""
    handlers, opaque = find_handlers(program)
    known = forward(program, handlers)
    needed, edges = backward(program, handlers, known)
    return Analysis(handlers, opaque, known, needed, edges)


def find_handlers(
    program: Program, find: Callable[[Op], tuple[LayerHandler, str | None]] = find_handler
) -> tuple[dict[Op, LayerHandler], dict[Op, str]]:
    """Returns the handler of each call, and why the opaque ones are opaque.

    Args:
        program: the program.
        find: says both for one call.
    """
    found = {op: find(op) for op in program.ops}
    # One set of weights cannot be both narrowed and whole: one opaque call makes all opaque.
    shared = {id(op.operation): why for op, (_, why) in found.items() if op.shared and why}
    handlers: dict[Op, LayerHandler] = {}
    opaque: dict[Op, str] = {}
    for op, (handler, reason) in found.items():
        reason = reason or shared.get(id(op.operation))
        handlers[op] = OPAQUE if reason else handler
        if reason:
            opaque[op] = reason
    return handlers, opaque


def forward(program: Program, handlers: Mapping[Op, LayerHandler]) -> dict[Tensor, Known]:
    """Returns what is known of every tensor."""
    known: dict[Tensor, Known] = {tensor: {} for tensor in program.inputs}
    for op in program.ops:
        results = ask_values(handlers[op], op, [known[tensor] for tensor in op.inputs])
        known.update(zip(op.outputs, results, strict=True))
    return known


def backward(
    program: Program,
    handlers: Mapping[Op, LayerHandler],
    known: Mapping[Tensor, Known],
    wanted: Mapping[Tensor, Needs] | None = None,
) -> tuple[dict[Tensor, Needs], dict[tuple[Op, int], Needs]]:
    """Returns which units of every tensor are needed, and which each call needs of its inputs.

    A layer that is called several times has one set of weights, so each call must carry the
    units that any of them needs. That can grow what earlier calls need; it only grows, so the
    pass is repeated until the calls of every shared layer agree.

    Args:
        program: the program.
        handlers: of its calls.
        known: of its tensors.
        wanted: what is needed beside the outputs.
    """
    floors: dict[int, _Floor] = {}
    while True:
        needed: dict[Tensor, Needs | None] = dict(wanted or {})
        needed |= {tensor: {} for tensor in program.outputs}
        edges: dict[tuple[Op, int], Needs] = {}
        grown: dict[int, _Floor] = {}
        for op in reversed(program.ops):
            if not any(tensor in needed for tensor in op.outputs):
                continue
            outputs = [needed.get(tensor) for tensor in op.outputs]
            floor = floors.get(id(op.operation)) if op.shared else None
            if floor is not None:
                outputs = floor.raise_outputs(op, outputs)
            inputs = ask_needs(handlers[op], op, outputs, [known[t] for t in op.inputs])
            if floor is not None:
                inputs = floor.raise_inputs(op, inputs)
            if op.shared:
                key = id(op.operation)
                grown[key] = _Floor.of(op, inputs, outputs).union(grown.get(key))
            needed.update(zip(op.outputs, outputs, strict=True))
            for i, (tensor, needs) in enumerate(zip(op.inputs, inputs, strict=True)):
                if needs is not None:
                    edges[op, i] = needs
                    needed[tensor] = union([needed.get(tensor), needs])
        if all(key in floors and floors[key].same(floor) for key, floor in grown.items()):
            return {tensor: needs for tensor, needs in needed.items() if needs is not None}, edges
        floors = grown


@dataclass
class _Floor:
    """What the calls of one shared layer need together.

    Axes are counted from the end, since calls may differ in rank.
    """

    inputs: list[Needs | None]
    outputs: list[Needs | None]

    @classmethod
    def of(cls, op: Op, inputs: list[Needs | None], outputs: list[Needs | None]) -> _Floor:
        return cls(_from_end(op.inputs, inputs, -1), _from_end(op.outputs, outputs, -1))

    def union(self, other: _Floor | None) -> _Floor:
        if other is None:
            return self
        return _Floor(
            [union(pair) for pair in zip(self.inputs, other.inputs, strict=True)],
            [union(pair) for pair in zip(self.outputs, other.outputs, strict=True)],
        )

    def same(self, other: _Floor) -> bool:
        pairs = zip(self.inputs + self.outputs, other.inputs + other.outputs, strict=True)
        return all(a == b if a is None or b is None else same(a, b) for a, b in pairs)

    def raise_inputs(self, op: Op, inputs: list[Needs | None]) -> list[Needs | None]:
        floor = _from_end(op.inputs, self.inputs, +1)
        return [union(pair) for pair in zip(inputs, floor, strict=True)]

    def raise_outputs(self, op: Op, outputs: list[Needs | None]) -> list[Needs | None]:
        floor = _from_end(op.outputs, self.outputs, +1)
        return [union(pair) for pair in zip(outputs, floor, strict=True)]


def _from_end(tensors: list[Tensor], needs: list[Needs | None], sign: int) -> list[Needs | None]:
    return [
        None if each is None else {axis + sign * tensor.rank: k for axis, k in each.items()}
        for tensor, each in zip(tensors, needs, strict=True)
    ]
