"""Where Keras adds a bias that does not lie along the last axis."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def misplaced(shape: Sequence[int | None], axes: Collection[int]) -> int | None:
    """Returns the axis along which Keras on TensorFlow adds a bias by mistake, or None.

    `keras.ops.add` takes a second operand with a single size other than 1 for a bias of the last
    axis, or else of axis 1, if that size fits there, even where it lies along another axis.

    Args:
        shape: of the first operand, batch axis included.
        axes: the axes of the first operand along which the bias has entries of its own.
    """
    along = [axis for axis in axes if shape[axis] != 1]
    if len(along) != 1:
        return None
    for axis in (len(shape) - 1, 1):
        if shape[axis] == shape[along[0]]:
            return None if axis == along[0] else axis
    return None
