"""What the letters of an `EinsumDense` equation stand for."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from keras_sbp.handlers._common import understood
from keras_sbp.program.equation import Equation, parse, spread
from keras_sbp.program.program import Op
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, kept


@dataclass(frozen=True)
class Roles:
    """What each letter of the equation stands for.

    Attributes:
        inputs, kernel, output: the letters of these terms, axis by axis.
        sizes: of the letters that can be followed.
        contracted: input and kernel have it, and it is summed.
        free: kernel and output have it.
        common: all three have it: each unit has a kernel of its own.
        passing: input and output have it, and it can be followed.
    """

    inputs: str
    kernel: str
    output: str
    sizes: Mapping[str, int]
    contracted: str
    free: str
    common: str
    passing: str

    @classmethod
    def of(cls, op: Op) -> Roles:
        """Reads the roles off a call that is understood."""
        equation = understood(equation_of(op))
        spell = _letters_for_digits(equation)
        inputs, kernel = (term.translate(spell) for term in equation.operands)
        output = equation.output.translate(spell)
        sizes = {a.translate(spell): size for a, size in sizes_of(op, equation).items()}
        return cls(
            inputs,
            kernel,
            output,
            sizes,
            contracted="".join(a for a in kernel if a not in output),
            free="".join(a for a in kernel if a not in inputs),
            common="".join(a for a in kernel if a in inputs and a in output),
            passing="".join(a for a in inputs if a in sizes and a not in kernel),
        )

    @property
    def equation(self) -> str:
        """The equation, which has no ellipsis: Keras mixes up the sizes of axes under one."""
        return f"{self.inputs},{self.kernel}->{self.output}"

    @property
    def weighted(self) -> str:
        """The kernel's letters that are in the output, in the kernel's order."""
        return "".join(a for a in self.kernel if a in self.output)

    @property
    def contracted_axes(self) -> tuple[int, ...]:
        """The kernel's axes that are summed."""
        return tuple(self.kernel.index(a) for a in self.contracted)

    def input_axes(self, letters: str) -> set[int]:
        """The input's axes under these letters."""
        return {self.inputs.index(a) for a in letters if a in self.inputs}

    def constants(self, known: Known) -> np.ndarray:
        """What is known of each input unit that meets a weight, over the kernel's letters."""
        shape = [self.sizes[a] if a in self.inputs else 1 for a in self.kernel]
        constant = np.full(shape, np.nan)
        for letter in self.contracted + self.common:
            axis = self.inputs.index(letter)
            if axis in known:
                here = spread(known[axis], letter, self.kernel)
                constant = np.where(np.isnan(constant), here, constant)
        return constant

    def absorbed(self, slim: Slim) -> np.ndarray:
        """The constants of input units that are not carried, 0 elsewhere."""
        constant = self.constants(slim.known)
        carried = np.ones_like(constant, bool)
        for letter in self.contracted + self.common:
            carries = slim.carries(self.inputs.index(letter))
            carried &= spread(carries, letter, self.kernel)
        return np.where(carried | np.isnan(constant), 0.0, constant)

    def keeps(self, slim: Slim, wanted: Needs) -> dict[str, np.ndarray]:
        """What is left of each letter: what the input carries, and the wanted outputs."""
        keeps = {
            a: slim.carries(self.inputs.index(a))
            for a in self.contracted + self.common + self.passing
        }
        for letter in self.free:
            keeps[letter] = kept(wanted, self.output.index(letter), self.sizes[letter])
        return keeps


def equation_of(op: Op) -> Equation | None:
    """Returns the equation over the axes of this call, or None if it is not understood."""
    ranks = (op.inputs[0].rank, len(op.operation.kernel.shape))
    equation = parse(op.operation.equation, ranks)
    fits = equation is not None and len(equation.output) == op.outputs[0].rank
    return equation if fits else None


def sizes_of(op: Op, equation: Equation) -> dict[str, int]:
    """Returns the sizes of the letters that can be followed; the batch axis cannot."""
    shapes = (op.inputs[0].shape, op.operation.kernel.shape)
    sizes = equation.sizes(shapes, op.outputs[0].shape)
    sizes.pop(equation.output[0], None)
    return sizes


def _letters_for_digits(equation: Equation) -> dict[int, str]:
    spare = (a for a in string.ascii_letters if a not in equation.letters)
    return {ord(a): next(spare) for a in equation.letters if a.isdigit()}
