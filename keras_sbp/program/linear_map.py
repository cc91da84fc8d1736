"""Layers as least squares sees them: at every position, a row of features times a matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras
import numpy as np


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A layer whose outputs, but for the activation, are rows of features times a matrix.

    By default a row is what lies along the last axis of the input, as in a Dense layer.

    Attributes:
        kernel: shape (..., features at one kernel position, outputs).
        bias: shape (outputs,), or None.
        feature_axis: the axis of the input along which the features lie.
    """

    kernel: keras.Variable
    bias: keras.Variable | None
    feature_axis: int

    @property
    def matrix(self) -> np.ndarray:
        """The kernel as float64 of shape (kernel positions x input features, outputs)."""
        kernel = keras.ops.convert_to_numpy(self.kernel).astype(np.float64)
        return kernel.reshape(-1, kernel.shape[-1])

    def count_rows(self, shape: tuple[int, ...]) -> int:
        """Returns how many rows a batch has: one for each output position of each example.

        Args:
            shape: of the input, batch axis included.
        """
        return math.prod(shape[:-1])

    def take_rows(self, x: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Returns some rows, which times `matrix` are the layer's outputs without bias.

        Args:
            x: the input.
            which: the numbers of the rows, below `count_rows`.

        Returns:
            Array of shape (rows, features), with as many features as the matrix has rows: those
            at the first kernel position, then those at the second, and so on.
        """
        return x.reshape(-1, x.shape[-1])[which]
