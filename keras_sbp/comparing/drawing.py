"""Batches of random inputs: unknown sizes, and values, are tried until the network runs on them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_sbp.comparing.values import Shape, Values, drawn, usual

# No usual number of channels: Keras on TensorFlow adds a (B, 1) addend as a bias where B is theirs.
MOST_EXAMPLES = 7
FEWEST_EXAMPLES = 2  # of one alone, nobody could say whether the outputs depend on the input

# Multiply-accumulates of one run; few seconds on one core.
BUDGET = 2 * 10**10

# What unknown sizes are tried with. The first are powers of two, which networks of several scales
# want; then come sizes that divide by other numbers, and those of large images.
SIZES = (64, 32, 16, 8, 4, 2, 48, 60, 96, 112, 36, 12, 128, 224, 256, 384, 512)
# So many places of an input at first: images of 64 × 64, but volumes of 16 × 16 × 16.
PLACES = 4096


@dataclass(frozen=True)
class Slot:
    """An input to draw for.

    Attributes:
        name: for the report.
        shape: batch axis first; None where the size is unknown.
        dtype: as Keras names it.
        values: kinds of values to try, the best first.
        also: other names that the keys of a dict may have for it, as many for every input.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    values: tuple[Values, ...] = ()
    also: tuple[str, ...] = ()

    def kind(self, attempt: int) -> Values:
        """Returns the kind of values of the n-th attempt."""
        kinds = self.values or usual(self.dtype)
        return kinds[min(attempt, len(kinds) - 1)]


@dataclass(frozen=True)
class ComparedInput:
    """What was put into one input to compare two networks.

    Attributes:
        name: of the input.
        shape: with the batch, as `(7, 64, 64, 3)`.
        dtype: of the numbers.
        values: what they were, in words, such as `"integers 0 to 255"` or `"given"`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    values: str

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {self.shape} {self.values}"


@dataclass(frozen=True)
class Batch:
    """One batch of inputs.

    Attributes:
        arrays: in the order of the inputs.
        inputs: what they are.
        again: draws a batch of the same shapes, from another `seed`, or of another kind of
            values (`attempt`); None for examples that were given.
    """

    arrays: list[np.ndarray]
    inputs: tuple[ComparedInput, ...]
    again: Callable[..., Batch] | None = None

    @property
    def examples(self) -> int:
        """How many there are."""
        return next((array.shape[0] for array in self.arrays if array.ndim), 1)


class DoesNotRunError(Exception):
    """The network ran on none of the batches; the last one's error is the cause.

    Attributes:
        tried: what was tried, in words.
    """

    def __init__(self, tried: str) -> None:
        super().__init__(tried)
        self.tried = tried


def draw(slots: Sequence[Slot], examples: int, size: int, attempt: int = 0, seed: int = 0) -> Batch:
    """Draws a batch.

    Args:
        slots: the inputs.
        examples: the size of the first axis, where it is unknown.
        size: what other unknown sizes become.
        attempt: which kind of values: 0 is the best.
        seed: of the random numbers.
    """
    rng = np.random.default_rng(seed)
    arrays, inputs = [], []
    for slot in slots:
        shape, kind = filled(slot.shape, examples, size), slot.kind(attempt)
        arrays.append(drawn(kind, shape, slot.dtype, rng))
        inputs.append(ComparedInput(slot.name, shape, slot.dtype, kind.said))

    def again(*, seed: int = seed, attempt: int = attempt) -> Batch:
        return draw(slots, examples, size, attempt, seed)

    return Batch(arrays, tuple(inputs), again)


def filled(shape: tuple[int | None, ...], examples: int, size: int) -> Shape:
    """Returns a shape with numbers in place of unknown sizes."""
    return tuple((size if i else examples) if n is None else n for i, n in enumerate(shape))


def batches(
    slots: Sequence[Slot], *, macs: int = 0, sizes: Iterable[int] = (), seed: int = 0
) -> Iterator[Batch]:
    """Yields batches to try, the best first.

    Args:
        slots: the inputs.
        macs: multiply-accumulates for one example, unknown sizes counted as 1. What many are
            spent on gets few examples.
        sizes: that the network has inside; they are tried as unknown ones after the usual.
        seed: of the random numbers.
    """
    for attempt in range(max(len(slot.values or usual(slot.dtype)) for slot in slots)):
        for size in sizes_to_try(slots, sizes):
            cost = macs * max(_places(slot, size) for slot in slots)
            yield draw(slots, affordable(cost, MOST_EXAMPLES), size, attempt, seed)


def affordable(macs: int, most: int) -> int:
    """Returns how many examples to compare on, of so many multiply-accumulates each."""
    return min(most, max(FEWEST_EXAMPLES, BUDGET // max(macs, 1)))


def sizes_to_try(slots: Sequence[Slot], more: Iterable[int] = ()) -> list[int]:
    """Returns what unknown sizes may become, in order; one number if there are none."""
    if not any(None in slot.shape[1:] for slot in slots):
        return [SIZES[0]]
    order = dict.fromkeys([*SIZES, *more, 1])  # 1 fits everything that broadcasts
    within = [n for n in order if all(_places(slot, n) <= PLACES for slot in slots)]
    return [*within, *(n for n in order if n not in within)]


def _places(slot: Slot, size: int) -> int:
    """How many places the unknown axes of an input make up."""
    return math.prod(size for n in slot.shape[1:] if n is None)


def first_that_runs(trials: Iterable[Batch], run: Callable[[Batch], Any]) -> tuple[Batch, Any]:
    """Returns the first batch that a network runs on, and what comes out.

    Args:
        trials: batches, of which as many are drawn as are needed.
        run: raises where the network does not run; any exception counts.

    Raises:
        DoesNotRunError: there is none.
    """
    tried: list[tuple[ComparedInput, ...]] = []
    last: Exception | None = None
    for batch in trials:
        tried.append(batch.inputs)
        try:
            return batch, run(batch)
        except Exception as error:  # each backend has its own
            last = error
            if is_lacking(error):
                break
    raise DoesNotRunError(_said(tried)) from last


def is_lacking(error: BaseException | None) -> bool:
    """Tells whether an error says that the backend lacks an operation on this machine.

    Which operations TensorFlow has depends on the processor.
    """
    return error is not None and re.search(_LACKING, str(error)) is not None


_LACKING = (
    r"only supports (the )?ND?HWC|not yet support dilation rates|No OpKernel was registered|"
    r"Could not find device for node|is not supported on CPU"
)


def _said(tried: list[tuple[ComparedInput, ...]]) -> str:
    """What was tried of each input."""
    lines = []
    for each in zip(*tried, strict=True):
        shapes = ", ".join(str(shape) for shape in dict.fromkeys(x.shape for x in each))
        kinds = "; ".join(dict.fromkeys(x.values for x in each))
        lines.append(f"  '{each[0].name}' ({each[0].dtype}: {kinds}) of shape {shapes}")
    return "\n".join(lines)
