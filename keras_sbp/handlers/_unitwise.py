"""Functions of each number alone, without weights."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from keras_sbp.program.activations import on_constants
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler
from keras_sbp.program.program import Op
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, only, tidy


class UnitWise(LayerHandler):
    """A function of each number alone: knowledge, needs and carried units pass through."""

    @abc.abstractmethod
    def function(self, op: Op) -> Callable[[Any], Any] | None:
        """Returns the function of a backend tensor, or None for the identity at inference."""

    @abc.abstractmethod
    def is_homogeneous(self, op: Op) -> bool:
        """Tells whether numbers ≥ 0 pass through the function."""

    def call(self, op: Op, tensor: keras.KerasTensor, build: Builder) -> keras.KerasTensor:
        """Repeats the call on the new tensor."""
        return build.layer(op)(tensor)

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """Constants go through the function."""
        dtype = op.operation.variable_dtype if isinstance(op.operation, layers.Layer) else "float32"
        return [tidy(on_constants(self.function(op), inputs[0], dtype))]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Each unit needs itself."""
        return [needed[0]]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same layer; scales pass through a homogeneous one."""
        slim = only(inputs)
        passes = self.is_homogeneous(op)
        if not passes:
            slim = build.settle(slim)
        tensor = self.call(op, slim.tensor, build)
        return [
            build.slim(
                op.outputs[0],
                tensor,
                carried=slim.carried,
                scale=slim.scale,
                rescale=slim.rescale if passes else {},
            )
        ]
