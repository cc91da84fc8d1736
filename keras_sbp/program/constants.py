"""What would not depend on the input any more."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import keras
import numpy as np

from keras_sbp.program import Analysis, Op, Program, Tensor, analyse, macs
from keras_sbp.program.program import Constant, reading
from keras_sbp.program.run import call
from keras_sbp.program.units import Known, wholly_constant


def constant_tensors(program: Program, analysis: Analysis) -> set[Tensor]:
    """Returns constants, and whatever is computed from them alone."""
    constant: set[Tensor] = set()
    for op in program.ops:
        computed_from_constants = all(tensor in constant for tensor in op.inputs)
        for tensor in op.outputs:
            if computed_from_constants or wholly_constant(analysis.known[tensor]) is not None:
                constant.add(tensor)
    return constant


def fold_constants(program: Program, analysis: Analysis) -> tuple[Program, Analysis]:
    """Returns the program with numbers in place of what is computed from constants, analysed.

    A zero-padded convolution, say, makes of a constant other than 0 something that differs at the
    borders. It is computed once, here, where that stores fewer numbers than it saves
    multiply-accumulates. What computed it stays in the program, and nothing needs it.
    """
    constant = constant_tensors(program, analysis)
    found = {}
    for tensor in _read_by_others(program, analysis, constant):
        ops = _behind(tensor, program, analysis)
        if not why_computed(tensor, ops, analysis):
            found[tensor] = _evaluated(tensor, ops, analysis)
    if not found:
        return program, analysis
    behind = {tensor: Tensor(tensor.shape, tensor.dtype) for tensor in found}
    ops = [Op(value, (), {}, [behind[tensor]]) for tensor, value in found.items()]
    for op in program.ops:
        stays = all(tensor in constant for tensor in op.outputs)
        ops.append(op if stays else reading(op, [behind.get(t, t) for t in op.inputs]))
    program = replace(program, ops=ops)
    return program, analyse(program)


def computed_constants(program: Program, analysis: Analysis) -> dict[Op, str]:
    """Returns the calls that still compute a constant, and why they do."""
    found: dict[Op, str] = {}
    for tensor in _read_by_others(program, analysis, constant_tensors(program, analysis)):
        ops = _behind(tensor, program, analysis)
        found |= {op: why for op in ops if (why := why_computed(tensor, ops, analysis))}
    return found


def why_computed(tensor: Tensor, ops: list[Op], analysis: Analysis) -> str:
    """Returns why a constant has to be computed by these calls, or "" if it need not be."""
    opaque = [op.name for op in ops if op in analysis.opaque]
    shapes = [tensor.shape for op in ops for tensor in (*op.inputs, *op.outputs)]
    if opaque:
        return f"'{opaque[0]}' is opaque"
    if any(None in shape[1:] for shape in shapes):
        return "sizes are unknown"
    if "float" not in tensor.dtype or any(t.masked for op in ops for t in op.outputs):
        return "it is no plain tensor of real numbers"
    if math.prod(map(tensor.size, range(1, tensor.rank))) > sum(macs(op) for op in ops):
        return "it has more numbers than it costs multiply-accumulates"
    return ""


def _read_by_others(program: Program, analysis: Analysis, constant: set[Tensor]) -> list[Tensor]:
    """Constants that are no known numbers, and needed by what is not constant, in order."""
    found: dict[Tensor, None] = {}
    for op in program.ops:
        if isinstance(op.operation, Constant) or all(t in constant for t in op.outputs):
            continue
        for i, tensor in enumerate(op.inputs):
            known = analysis.known[tensor]
            if (op, i) in analysis.edges and tensor in constant and wholly_constant(known) is None:
                found[tensor] = None
    return list(found)


def _behind(tensor: Tensor, program: Program, analysis: Analysis) -> list[Op]:
    """The calls that make a constant of known numbers, in order."""
    wanted = {tensor}
    ops = []
    for op in reversed(program.ops):
        if not wanted.isdisjoint(op.outputs) and not isinstance(op.operation, Constant):
            wanted.update(t for t in op.inputs if wholly_constant(analysis.known[t]) is None)
            ops.append(op)
    return ops[::-1]


def _evaluated(tensor: Tensor, ops: Iterable[Op], analysis: Analysis) -> Constant:
    values = {}
    for op in ops:
        for each in op.inputs:
            if each not in values:
                values[each] = _filled(each, analysis.known[each])
        values.update(zip(op.outputs, call(op, values), strict=True))
        name = op.name
    return Constant(keras.ops.convert_to_numpy(values[tensor])[0], name)


def _filled(tensor: Tensor, known: Known) -> keras.KerasTensor:
    """One example of a tensor that is constant along an axis."""
    axis = wholly_constant(known)
    if axis is None:
        raise ValueError("The tensor is not constant along any axis.")
    shape = [1] * tensor.rank
    shape[axis] = -1
    sizes = [tensor.size(a) for a in range(1, tensor.rank)]
    value = np.broadcast_to(known[axis].reshape(shape), (1, *sizes))
    return keras.ops.cast(keras.ops.convert_to_tensor(np.array(value)), tensor.dtype)
