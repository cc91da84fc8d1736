"""Rescaling and Normalization: a fixed affine function of each feature."""

from __future__ import annotations

import abc
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_sbp.handlers._common import numpy_weight
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.program import Op
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, constants, only, tidy


class FixedAffine(LayerHandler):
    """x · slope + offset, with numbers that belong to the config and do not train."""

    @abc.abstractmethod
    def slope_and_offset(self, op: Op) -> tuple[np.ndarray, np.ndarray]:
        """Returns the numbers per feature along the last axis, or single ones. float64."""

    @abc.abstractmethod
    def narrowed_config(self, op: Op, carried: np.ndarray | slice) -> dict[str, Any]:
        """Returns the config entries that change when only some features are carried."""

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """Constants go through the affine function."""
        slope, offset = self.slope_and_offset(op)
        if slope.size == offset.size == 1:
            return [tidy({axis: c * slope + offset for axis, c in inputs[0].items()})]
        axis = op.inputs[0].rank - 1
        constant = constants(inputs[0], axis, op.inputs[0].size(axis))
        return [tidy({axis: constant * slope + offset})]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Each unit needs itself; a layer called twice is kept whole."""
        return [{} if op.shared else needed[0]]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same layer with the numbers of the carried features."""
        slim = build.settle(only(inputs))
        changes = self.narrowed_config(op, slim.carried.get(slim.source.rank - 1, np.s_[:]))
        tensor = build.layer(op, **changes)(slim.tensor)
        return [build.slim(op.outputs[0], tensor, carried=slim.carried)]


@register_handler(layers.Rescaling)
class Rescaling(FixedAffine):
    """Units and constants pass; numbers per feature are pruned with them. Opaque when its numbers
    follow another axis than the last, or `channels_first` is the default.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses numbers of other shapes, which follow other axes."""
        layer = op.operation
        if max(np.ndim(layer.scale), np.ndim(layer.offset)) == 0:
            return None
        if keras.config.image_data_format() == "channels_first":
            return "its numbers follow the channels_first setting"
        last = op.inputs[0].shape[-1]
        if {np.size(layer.scale), np.size(layer.offset)} <= {1, last} and last is not None:
            return None
        return "its numbers do not follow the last axis"

    def slope_and_offset(self, op: Op) -> tuple[np.ndarray, np.ndarray]:
        """Scale and offset as given."""
        layer = op.operation
        return _flat(layer.scale), _flat(layer.offset)

    def narrowed_config(self, op: Op, carried: np.ndarray | slice) -> dict[str, Any]:
        """The entries of the carried features; single numbers stay."""
        layer = op.operation
        return {
            name: value if np.size(value) == 1 else _flat(value)[carried].tolist()
            for name, value in {"scale": layer.scale, "offset": layer.offset}.items()
        }


@register_handler(layers.Normalization)
class Normalization(FixedAffine):
    """Units and constants pass; moments per feature are pruned with them. Opaque when it was not
    adapted, or follows another axis than the last.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses layers that were not adapted, and other axes."""
        layer, rank = op.operation, op.inputs[0].rank
        if layer.mean is None:
            return "it was not adapted"
        if {axis % rank for axis in layer.axis} <= {rank - 1}:
            return None
        return "it does not follow the last axis"

    def slope_and_offset(self, op: Op) -> tuple[np.ndarray, np.ndarray]:
        """(x − mean) / deviation, or its inverse."""
        mean, variance = _flat(op.operation.mean), _flat(op.operation.variance)
        deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
        if op.operation.invert:
            return deviation, mean
        return 1 / deviation, -mean / deviation

    def narrowed_config(self, op: Op, carried: np.ndarray | slice) -> dict[str, Any]:
        """The moments of the carried features."""
        mean, variance = _flat(op.operation.mean), _flat(op.operation.variance)
        if not op.operation.axis:
            return {"mean": float(mean[0]), "variance": float(variance[0])}
        mean, variance = mean[carried], variance[carried]
        if op.operation.variable_dtype == "float64":  # Keras turns lists to float32 first
            return {"mean": mean, "variance": variance}
        return {"mean": mean.tolist(), "variance": variance.tolist()}


def _flat(numbers: Any) -> np.ndarray:
    if not isinstance(numbers, int | float | list | tuple | np.ndarray):
        numbers = numpy_weight(numbers)
    return np.asarray(numbers, np.float64).reshape(-1)
