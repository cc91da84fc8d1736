"""A gate whose decision has been made, as the program sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Scale:
    """Multiplies units by fixed numbers ≥ 0; 0 removes the unit.

    Attributes:
        axis: the unit axis (negative counts from the end), or None for the whole tensor.
        factor: float64, shape (units,); (1,) for the whole tensor.
        name: for messages.
    """

    axis: int | None
    factor: np.ndarray
    name: str
