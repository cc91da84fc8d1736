"""What a layer is, however it is called: an opaque call counts its multiplications too.

The handler of the nearest class answers, whatever a subclass changes.
"""

from __future__ import annotations

import numpy as np

from keras_sbp.program.checks import Answer
from keras_sbp.program.handler import OPAQUE, LayerHandler
from keras_sbp.program.linear_map import LinearMap
from keras_sbp.program.program import Op
from keras_sbp.program.registry import nearest_handler


def macs(op: Op) -> int:
    """Returns the multiply-accumulates that one call spends on one example.

    Counted are kernels, at each position at which they are applied, and products of tensors.
    Biases, normalizations, activations and pooling count as 0, as is usual. Unknown sizes count
    as 1.

    Args:
        op: a call of a traced program.
    """
    handler = _handler(op)
    answer = Answer(handler, op, "macs")
    count = answer.to(lambda: handler.macs(op))
    if not isinstance(count, int | np.integer) or count < 0:
        answer.wrong("an integer that is at least 0", repr(count))
    return int(count)


def unit_axes(op: Op) -> list[int]:
    """Returns the axes of an op's first output whose units have weights of their own."""
    handler = _handler(op)
    answer = Answer(handler, op, "unit_axes")
    axes = answer.to(lambda: handler.unit_axes(op))
    rank = op.outputs[0].rank
    if not isinstance(axes, list) or any(axis not in range(1, rank) for axis in axes):
        answer.wrong(f"a list of axes of output 0, each from 1 to {rank - 1}", repr(axes))
    return axes


def kernel_rows(op: Op, axis: int) -> np.ndarray | None:
    """Returns the weights that make the units along an axis of an op's first output.

    Returns:
        Array of shape (units, ...), or None where they do not fall into rows by units.
    """
    handler = _handler(op)
    answer = Answer(handler, op, "kernel_rows")
    rows = answer.to(lambda: handler.kernel_rows(op, axis))
    if rows is None:
        return None
    if not isinstance(rows, np.ndarray) or rows.ndim == 0:
        answer.wrong("a NumPy array with one row for each unit, or None", type(rows).__name__)
    # A subclass may make something else of its kernel.
    return rows if len(rows) == op.outputs[0].shape[axis] else None


def normalization_scale(op: Op) -> np.ndarray | None:
    """Returns what a normalization multiplies each unit by, float64, or None if it is none."""
    return _handler(op).normalization_scale(op)


def linear_map(op: Op) -> LinearMap | None:
    """Returns a layer as rows of features times a matrix, or None if it is none."""
    return _handler(op).linear_map(op)


def _handler(op: Op) -> LayerHandler:
    return nearest_handler(op.operation) or OPAQUE
