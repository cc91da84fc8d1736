"""What is known and needed of a tensor's units, axis by axis.

`Known` maps an axis to a float64 array, one entry per unit: the constant that the whole slice
holds, or NaN where it varies with the input. `Needs` maps an axis to a boolean array: True where
the unit must be there. Axes are counted from 0 (the batch axis, never a key). An axis that is
missing means "nothing known" in `Known` and "everything needed" in `Needs`: both are always safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

Known = dict[int, np.ndarray]
Needs = dict[int, np.ndarray]


Entry = TypeVar("Entry")


def only(entries: Sequence[Entry | None]) -> Entry:
    """Returns what there is for the one input, or the one output, of a call.

    It is never None: a call is only asked what it needs, and only made anew, for an output that
    is needed.

    Raises:
        ValueError: There are several, or the one is None.
    """
    (entry,) = every(entries)
    return entry


def every(entries: Sequence[Entry | None]) -> list[Entry]:
    """Returns what there is for the inputs of a call that needs all of them.

    Raises:
        ValueError: One is None.
    """
    found = [entry for entry in entries if entry is not None]
    if len(found) < len(entries):
        raise ValueError(
            f"{len(entries) - len(found)} of {len(entries)} tensors of the call are not needed. "
            "Expected that all of them are."
        )
    return found


def constants(known: Known, axis: int, size: int) -> np.ndarray:
    """Returns the constants along `axis`, NaN where the unit varies; shape (size,)."""
    return known.get(axis, np.full(size, np.nan))


def kept(needs: Needs, axis: int, size: int) -> np.ndarray:
    """Returns the boolean array along `axis`, all True where the axis is not restricted."""
    return needs.get(axis, np.ones(size, bool))


def tidy(known: Known) -> Known:
    """Drops axes on which every unit varies; a constant that is not finite is no knowledge."""
    finite = {axis: np.where(np.isfinite(c), c, np.nan) for axis, c in known.items()}
    return {axis: c for axis, c in finite.items() if not np.isnan(c).all()}


def wholly_constant(known: Known) -> int | None:
    """Returns an axis along which every unit is a known constant, else None."""
    return next((axis for axis, c in known.items() if not np.isnan(c).any()), None)


def constant_everywhere(value: float, shape: tuple[int | None, ...]) -> Known:
    """Returns the knowledge of a tensor that holds one value only."""
    return {a: np.full(n, float(value)) for a, n in enumerate(shape) if a > 0 and n is not None}


def union(needs: Iterable[Needs | None]) -> Needs | None:
    """Returns what satisfies all of them; None means that nothing at all is needed.

    Axes whose sizes differ (calls of a shared layer on longer and shorter inputs) are dropped.
    """
    result: Needs | None = None
    for each in needs:
        if each is None:
            continue
        if result is None:
            result = dict(each)
        else:
            result = {
                axis: keep | each[axis]
                for axis, keep in result.items()
                if axis in each and keep.size == each[axis].size
            }
    return result


def same(a: Needs, b: Needs) -> bool:
    """Tells whether two restrictions keep the same units."""

    def restricting(needs: Needs) -> Needs:
        return {axis: keep for axis, keep in needs.items() if not keep.all()}

    a, b = restricting(a), restricting(b)
    return a.keys() == b.keys() and all(np.array_equal(a[axis], b[axis]) for axis in a)
