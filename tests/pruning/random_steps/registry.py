"""Where the random networks' further steps are collected, by the rank of their input."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING:
    from tests.pruning.random_graphs import Author

Step = Callable[["Author", keras.KerasTensor], keras.KerasTensor]
STEPS: dict[int, list[Step]] = defaultdict(list)


def step(*ranks: int) -> Callable[[Step], Step]:
    """Makes random networks call the function on tensors of these ranks (batch axis included)."""

    def add(write: Step) -> Step:
        for rank in ranks:
            STEPS[rank].append(write)
        return write

    return add
