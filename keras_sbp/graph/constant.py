"""What a part of the network computes from constants, as the program sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that does not depend on the input; its call has no arguments.

    Attributes:
        value: the numbers, the same for every example; without the batch axis.
        name: of what computed it.
    """

    value: np.ndarray
    name: str
