"""Einsum and matmul of tensors: products of units, summed over some axes."""

from __future__ import annotations

import abc
from typing import Any

import keras
import numpy as np

from keras_sbp import _keras
from keras_sbp.handlers._common import at_least_one, understood
from keras_sbp.program.builder import Builder
from keras_sbp.program.equation import Equation, matmul_equation, parse
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.program import Op, is_tensor
from keras_sbp.program.slim import Rescale, Slim
from keras_sbp.program.units import Known, Needs, constant_everywhere, every, only, tidy


class Contraction(LayerHandler):
    """A unit that is 0 in one operand makes the result 0, or adds nothing to it."""

    @abc.abstractmethod
    def equation(self, op: Op) -> Equation | None:
        """Returns the equation, or None if it is not understood."""

    @abc.abstractmethod
    def call(self, op: Op, operands: list) -> keras.KerasTensor:
        """Makes the call on new operands."""

    def refuses(self, op: Op) -> str | None:
        """Refuses operands that are no arrays, and equations whose units cannot be followed."""
        if op.kwargs or not all(is_tensor(x) or _is_array(x) for x in op.args):
            return "its operands are not all tensors or arrays"
        equation = self.equation(op)
        if equation is None:
            return "its equation is not understood"
        batch = equation.output[:1]
        terms = zip(equation.operands, op.args, strict=True)
        if not batch or any(is_tensor(x) and term[0] != batch for term, x in terms):
            return "its equation moves the batch axis"
        return None

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """Zeros of any operand are zeros of the result."""
        equation, zeros = understood(self.equation(op)), self._zeros(op, inputs)
        if any(zero.all() for zero in zeros.values()):
            return [constant_everywhere(0.0, op.outputs[0].shape)]
        axes = {equation.output.index(a): zero for a, zero in zeros.items() if a in equation.output}
        return [tidy({axis: np.where(zero, 0.0, np.nan) for axis, zero in axes.items()})]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """What is summed must not be 0 in any operand; what is not is needed as in the result."""
        wanted = only(needed)
        equation, zeros = understood(self.equation(op)), self._zeros(op, inputs)
        keeps: dict[str, np.ndarray] = {}
        for letter, zero in zeros.items():
            if letter not in equation.output:
                keeps[letter] = at_least_one(~zero)
            elif equation.output.index(letter) in wanted:
                keeps[letter] = wanted[equation.output.index(letter)]
        return [
            {axis: keeps[a] for axis, a in enumerate(term) if a in keeps}
            for term, x in zip(equation.operands, op.args, strict=True)
            if is_tensor(x)
        ]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same product of operands that carry the same units."""
        wanted = only(needed)
        equation, sizes = understood(self.equation(op)), self._sizes(op)
        followed = "".join(a for a in equation.output if a in sizes)
        terms = [t for t, x in zip(equation.operands, op.args, strict=True) if is_tensor(x)]
        slims = [
            build.settle(slim, {axis for axis, a in enumerate(term) if a in followed})
            for term, slim in zip(terms, every(inputs), strict=True)
        ]
        if not _agree(terms, slims, sizes):
            slims = [build.align(op, i, slim) for i, slim in enumerate(slims)]
        keeps = {a: wanted[axis] for axis, a in enumerate(equation.output) if axis in wanted}
        for term, slim in zip(terms, slims, strict=True):
            keeps |= {a: slim.carries(axis) for axis, a in enumerate(term) if a in sizes}
        waiting = iter(slims)
        operands = [
            next(waiting).tensor if is_tensor(x) else _narrowed(x, term, keeps)
            for term, x in zip(equation.operands, op.args, strict=True)
        ]
        tensor = self.call(op, operands)
        scale, rescale = _scales(followed, terms, slims)
        return [
            build.slim(
                op.outputs[0],
                tensor,
                carried={equation.output.index(a): keeps[a] for a in followed if a in keeps},
                scale={equation.output.index(a): s for a, s in scale.items()},
                rescale={equation.output.index(a): r for a, r in rescale.items()},
            )
        ]

    def macs(self, op: Op) -> int:
        """The products that are summed; 0 where its equation is not understood."""
        if op.kwargs or not all(hasattr(x, "shape") for x in op.args):
            return 0
        equation = self.equation(op)
        if equation is None:
            return 0
        return equation.multiplications([x.shape for x in op.args], op.outputs[0].shape)

    def _sizes(self, op: Op) -> dict[str, int]:
        equation = understood(self.equation(op))
        sizes = equation.sizes([x.shape for x in op.args], op.outputs[0].shape)
        sizes.pop(equation.output[0], None)
        return sizes

    def _zeros(self, op: Op, inputs: list[Known]) -> dict[str, np.ndarray]:
        """Which units are 0 in some operand, by letter."""
        zeros = {letter: np.zeros(size, bool) for letter, size in self._sizes(op).items()}
        known = iter(inputs)
        for term, x in zip(understood(self.equation(op)).operands, op.args, strict=True):
            constants = next(known) if is_tensor(x) else _zero_slices(x)
            for axis, letter in enumerate(term):
                if axis in constants and letter in zeros:
                    zeros[letter] |= constants[axis] == 0
        return zeros


@register_handler(_keras.numpy_ops.Einsum)
class Einsum(Contraction):
    """Units pass along axes of the result; what is 0 in one operand goes from the sums of all.
    Opaque when its equation is implicit, takes a diagonal, or moves the batch axis.
    """

    def equation(self, op: Op) -> Equation | None:
        """Its subscripts."""
        return parse(op.operation.subscripts, [len(x.shape) for x in op.args])

    def call(self, op: Op, operands: list) -> keras.KerasTensor:
        """With the same subscripts."""
        return keras.ops.einsum(op.operation.subscripts, *operands)


@register_handler(_keras.numpy_ops.Matmul)
class Matmul(Contraction):
    """Units pass along axes of the result; what is 0 in one operand goes from the sums of both."""

    def equation(self, op: Op) -> Equation | None:
        """Rows by columns, over all axes before them."""
        return matmul_equation(*(len(x.shape) for x in op.args))

    def call(self, op: Op, operands: list) -> keras.KerasTensor:
        """The product."""
        return keras.ops.matmul(*operands)


def _is_array(x: Any) -> bool:
    """A variable would be frozen, so it is none."""
    is_variable = isinstance(x, keras.Variable)
    return isinstance(x, np.ndarray) or (keras.ops.is_tensor(x) and not is_variable)


def _zero_slices(x: Any) -> Known:
    """Along each axis of a constant operand, 0 where the whole slice is 0."""
    nonzero = keras.ops.convert_to_numpy(x) != 0
    axes = range(nonzero.ndim)
    some = {axis: nonzero.any(tuple(a for a in axes if a != axis)) for axis in axes}
    return {axis: np.where(keep, np.nan, 0.0) for axis, keep in some.items()}


def _narrowed(x: Any, term: str, keeps: dict[str, np.ndarray]) -> np.ndarray:
    array = keras.ops.convert_to_numpy(x)
    for axis, letter in enumerate(term):
        if letter in keeps and array.shape[axis] == keeps[letter].size:
            array = np.compress(keeps[letter], array, axis)
    return array


def _agree(terms: list[str], slims: list[Slim], sizes: dict[str, int]) -> bool:
    """Tells whether all operands carry the same units of every letter."""
    carried: dict[str, np.ndarray] = {}
    for term, slim in zip(terms, slims, strict=True):
        for axis, letter in enumerate(term):
            if letter in sizes:
                keep = slim.carries(axis)
                if not np.array_equal(carried.setdefault(letter, keep), keep):
                    return False
    return True


def _scales(
    followed: str, terms: list[str], slims: list[Slim]
) -> tuple[dict[str, np.ndarray], dict[str, Rescale]]:
    """A factor of one operand's unit is a factor of the result's."""
    scale: dict[str, np.ndarray] = {}
    rescale: dict[str, Rescale] = {}
    for term, slim in zip(terms, slims, strict=True):
        for axis, letter in enumerate(term):
            if letter in followed and axis in slim.scale:
                scale[letter] = scale.get(letter, 1.0) * slim.scale[axis]
            if letter in followed and axis in slim.rescale:
                rescale.setdefault(letter, slim.rescale[axis])
    return scale, rescale
