"""What values an input may take, and random ones of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

Shape = tuple[int, ...]

UNKNOWN_WORDS = ("an unknown word", "another unknown word")


@dataclass(frozen=True)
class Values:
    """A kind of values.

    Attributes:
        said: what they are, in words for the report.
        draw: makes an array of them, given a random generator and a shape.
    """

    said: str
    draw: Callable[[np.random.Generator, Shape], np.ndarray]


def normal(mean: np.ndarray | float = 0.0, scale: np.ndarray | float = 1.0) -> Values:
    """Normal numbers, by default standard normal. `mean` and `scale` broadcast."""
    standard = np.ndim(mean) == np.ndim(scale) == 0 and (mean, scale) == (0.0, 1.0)
    said = "standard normal" if standard else "normal, of the mean and scale that a layer expects"
    return Values(said, lambda rng, shape: mean + scale * rng.standard_normal(shape))


def uniform() -> Values:
    """Numbers between 0 and 1, for what normal ones are no input of, as under a logarithm."""
    return Values("between 0 and 1", lambda rng, shape: rng.random(shape))


def integers(first: int, last: int) -> Values:
    """Integers from `first` to `last`, both included."""
    return Values(
        f"integers {first} to {last}",
        lambda rng, shape: rng.integers(first, last, shape, endpoint=True),
    )


def around(boundaries: Sequence[float]) -> Values:
    """Numbers on both sides of boundaries."""
    low, high = min(boundaries), max(boundaries)
    margin = max(1.0, (high - low) / max(1, len(boundaries)))
    return Values(
        f"between {low - margin:g} and {high + margin:g}",
        lambda rng, shape: rng.uniform(low - margin, high + margin, shape),
    )


def booleans() -> Values:
    """True or False."""
    return Values("True or False", lambda rng, shape: rng.random(shape) < 0.5)


def choices(of: Sequence, said: str) -> Values:
    """Any of these."""
    every = np.array(list(of), object)
    return Values(said, lambda rng, shape: every[rng.integers(0, len(every), shape)])


def words(vocabulary: Sequence[str], *, unknown: bool = True) -> Values:
    """Words of a vocabulary and, if wanted, others."""
    both = [*vocabulary, *(UNKNOWN_WORDS if unknown else ())]
    if not vocabulary:
        return choices(both, "words")
    return choices(both, f"words of a vocabulary{' and unknown ones' if unknown else ''}")


def sentences(vocabulary: Sequence[str], length: int = 8) -> Values:
    """Some words in a row, of a vocabulary and others."""
    single = words(vocabulary)

    def draw(rng: np.random.Generator, shape: Shape) -> np.ndarray:
        result = np.empty(shape, object)
        for place in np.ndindex(*shape):
            result[place] = " ".join(single.draw(rng, (int(rng.integers(1, length + 1)),)))
        return result

    return Values(f"sentences of {single.said}", draw)


def usual(dtype: str) -> tuple[Values, ...]:
    """Values for an input of which the dtype is all that is known, the best first.

    Integers of 8 bits are mostly images or measurements, wider ones mostly indices: 0 and 1 are
    valid for every vocabulary.
    """
    if "float" in dtype:
        return normal(), uniform()
    if dtype == "bool":
        return (booleans(),)
    if dtype == "string":
        return (words(()),)
    if dtype in ("uint8", "int8"):
        limits = np.iinfo(dtype)
        return integers(int(limits.min), int(limits.max)), integers(0, 1)
    return (integers(0, 1),)


def drawn(values: Values, shape: Shape, dtype: str, rng: np.random.Generator) -> np.ndarray:
    """Returns random values in an array of a dtype; words in an array of objects."""
    array = values.draw(rng, shape)
    if dtype == "string":
        return array
    if dtype == "bfloat16":
        return keras.ops.convert_to_numpy(keras.ops.cast(array.astype("float32"), dtype))
    return np.asarray(array).astype(dtype)
