"""A tensor of the network that is being built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np

from keras_sbp.program.program import Tensor
from keras_sbp.program.units import Known, Needs, kept

Rescale = Callable[[np.ndarray], None]


@dataclass
class Slim:
    """The slimmed counterpart of an original tensor.

    All arrays are indexed by the units of the *original* tensor.

    Attributes:
        source: the original tensor.
        tensor: the new Keras tensor, which holds the carried units only.
        known: what is known of the original tensor.
        carried: axis → boolean array of the units that `tensor` holds; all, where missing.
        scale: axis → numbers ≥ 0 that are still to be multiplied in:
            original value = new value · scale.
        rescale: axis → function that multiplies the tensor by numbers ≥ 0 along that axis, by
            changing the weights of the layer that produces it. Empty where that cannot be done,
            or where others read the tensor too.
    """

    source: Tensor
    tensor: keras.KerasTensor
    known: Known
    carried: Needs = field(default_factory=dict)
    scale: dict[int, np.ndarray] = field(default_factory=dict)
    rescale: dict[int, Rescale] = field(default_factory=dict)

    def carries(self, axis: int) -> np.ndarray:
        """Returns the boolean array of carried units along `axis`."""
        return kept(self.carried, axis, self.source.size(axis))

    def scale_on(self, axis: int) -> np.ndarray:
        """Returns the pending scale along `axis`, ones where there is none."""
        return self.scale.get(axis, np.ones(self.source.size(axis)))

    def absorbed(self, axis: int) -> np.ndarray:
        """Returns the constants of the units that are not carried, 0 elsewhere."""
        constant = self.known.get(axis)
        if constant is None:
            return np.zeros(self.source.size(axis))
        return np.where(self.carries(axis) | np.isnan(constant), 0.0, constant)
