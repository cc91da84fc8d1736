"""Einsum equations, one letter per axis."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

Shape = Sequence[int | None]

_TERM = re.compile(r"[a-zA-Z]*(\.\.\.)?[a-zA-Z]*")


@dataclass(frozen=True)
class Equation:
    """A product of operands, summed over the letters that the output lacks.

    Attributes:
        operands: one letter for each axis of each operand; digits stand for the axes under an
            ellipsis.
        output: the same for the result.
    """

    operands: tuple[str, ...]
    output: str

    @property
    def letters(self) -> list[str]:
        """All letters, each once, in order."""
        return list(dict.fromkeys("".join(self.operands) + self.output))

    def sizes(self, shapes: Iterable[Shape], output: Shape) -> dict[str, int]:
        """Returns the sizes of the letters that are known wherever the letter stands.

        A letter of which one operand has a single entry to repeat, or an unknown number, is not
        among them: its units cannot be followed.
        """
        found: dict[str, set[int | None]] = {}
        for term, shape in zip((*self.operands, self.output), (*shapes, output), strict=True):
            for letter, size in zip(term, shape, strict=True):
                found.setdefault(letter, set()).add(size)
        alone = {letter: next(iter(sizes)) for letter, sizes in found.items() if len(sizes) == 1}
        return {letter: size for letter, size in alone.items() if size is not None}

    def multiplications(self, shapes: Iterable[Shape], output: Shape) -> int:
        """Returns the products that are summed for one example; unknown sizes count as 1."""
        largest: dict[str, int] = {}
        for term, shape in zip((*self.operands, self.output), (*shapes, output), strict=True):
            for letter, size in zip(term, shape, strict=True):
                largest[letter] = max(largest.get(letter, 1), 1 if size is None else size)
        return math.prod(n for letter, n in largest.items() if letter != self.output[:1])


def parse(subscripts: str, ranks: Sequence[int]) -> Equation | None:
    """Reads an equation such as "abc,cd->abd" or "...x,xy->...y".

    Args:
        subscripts: what `keras.ops.einsum` takes.
        ranks: the number of axes of each operand.

    Returns:
        The equation, or None where it does not name its output, a term takes a diagonal, or
        terms and ranks do not match.
    """
    operands, arrow, output = subscripts.replace(" ", "").partition("->")
    terms = operands.split(",")
    if not arrow or len(terms) != len(ranks):
        return None
    hidden = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    for term, axes in zip(terms, hidden, strict=True):
        if not _TERM.fullmatch(term) or axes < 0 or (axes and "..." not in term):
            return None
    most = max(hidden)
    if not _TERM.fullmatch(output) or most > 9 or (most and "..." not in output):
        return None
    digits = "0123456789"[:most]
    # Axes under an ellipsis are counted from the last, as they broadcast.
    written = [
        term.replace("...", digits[most - axes :]) for term, axes in zip(terms, hidden, strict=True)
    ]
    output = output.replace("...", digits)
    if any(len(set(term)) < len(term) for term in (*written, output)):
        return None
    if not set(output) <= set("".join(written)):
        return None
    return Equation(tuple(written), output)


def matmul_equation(left: int, right: int) -> Equation | None:
    """Returns what `matmul` computes from operands of these ranks."""
    terms = ["...mk" if left > 1 else "k", "...kn" if right > 1 else "k"]
    output = "..." + ("m" if left > 1 else "") + ("n" if right > 1 else "")
    return parse(f"{terms[0]},{terms[1]}->{output}", (left, right))


def spread(vector: np.ndarray, letter: str, letters: str) -> np.ndarray:
    """Lays a vector along a letter, so that it broadcasts against an array over `letters`."""
    shape = [1] * len(letters)
    shape[letters.index(letter)] = -1
    return vector.reshape(shape)


def laid_onto(array: np.ndarray, letters: str, target: str) -> np.ndarray:
    """Reorders an array over `letters` to the order of `target`, size 1 where it has no letter."""
    order = sorted(range(len(letters)), key=lambda i: target.index(letters[i]))
    shape = [array.shape[letters.index(each)] if each in letters else 1 for each in target]
    return array.transpose(order).reshape(shape)
