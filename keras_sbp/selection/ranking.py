"""From importance to decisions."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from keras_sbp.selection.network import Decisions, UnitGroup


def most_important(importance: np.ndarray, count: int) -> np.ndarray:
    """Returns which units stay if `count` do: the most important, the first of equals.

    Units of unknown (NaN) importance stay in any case.

    Args:
        importance: shape (units,).
        count: how many stay.
    """
    ranked = np.argsort(-_known(importance), kind="stable")
    keep = np.isnan(importance)
    keep[ranked[:count]] = True
    return keep


def rounded_up(
    keep: Decisions, importance: Mapping[UnitGroup, np.ndarray], multiple: int
) -> dict[UnitGroup, np.ndarray]:
    """Brings the most important of the dropped units back until each count is a multiple.

    A group of which nothing stays is left so, and none gets more units than it has: frozen ones
    do not come back.
    """
    result = {}
    for group, kept in keep.items():
        count = min(math.ceil(kept.sum() / multiple) * multiple, np.count_nonzero(group.alive))
        first = np.where(kept, np.inf, _known(importance[group]))
        first = np.where(group.alive, first, -np.inf)
        result[group] = most_important(first, count) if kept.sum() < count else kept
    return result


def _known(importance: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(importance), np.inf, importance)
