"""What operations have in common that only rearrange the numbers of their input."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field

import keras
import numpy as np

from keras_sbp.handlers._common import at_least_one
from keras_sbp.handlers.ops._shared import UNUSUAL_ARGUMENTS, reads_one_tensor
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler
from keras_sbp.program.program import Op, Tensor
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, constant_everywhere, kept, only, tidy, union


@dataclass(frozen=True, eq=False)
class View:
    """Where the numbers of one result come from.

    Attributes:
        axes: for each axis of the result that of the input, or None for an axis of its own.
        picks: input axis → the positions taken along it, in order; all of them where missing.
        fixed: input axis that vanishes → the position taken.
    """

    axes: tuple[int | None, ...]
    picks: dict[int, np.ndarray] = field(default_factory=dict)
    fixed: dict[int, int] = field(default_factory=dict)

    def pick(self, by_unit: np.ndarray, axis: int) -> np.ndarray:
        """Turns an array over the input's units into one over the result's."""
        return by_unit[self.picks[axis]] if axis in self.picks else by_unit

    def pick_all(self, by_axis: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """Turns arrays over the input's units into arrays over the result's, by axis."""
        return {
            out: self.pick(by_axis[axis], axis)
            for out, axis in enumerate(self.axes)
            if axis in by_axis
        }

    def needs(self, needed: Needs, tensor: Tensor) -> Needs:
        """Returns the units of the input tensor behind those of the result."""
        needs: Needs = {}
        for out, axis in enumerate(self.axes):
            if axis is not None and axis in self.picks:
                keep = at_least_one(kept(needed, out, self.picks[axis].size))
                needs[axis] = np.zeros(tensor.size(axis), bool)
                needs[axis][self.picks[axis][keep]] = True
            elif axis is not None and out in needed:
                needs[axis] = needed[out]
        for axis, position in self.fixed.items():
            size = tensor.shape[axis]
            if size is not None:
                needs[axis] = np.arange(size) == position
        return needs


class Rearrange(LayerHandler):
    """Units, constants and scales pass to where they go."""

    @abc.abstractmethod
    def views(self, op: Op) -> list[View]:
        """Returns where each result comes from."""

    @abc.abstractmethod
    def call(self, op: Op, slim: Slim, build: Builder) -> list[keras.KerasTensor | None]:
        """Makes the results from what is carried; None for those without any unit."""

    def refuses(self, op: Op) -> str | None:
        """Refuses what concerns the batch axis, and empty results."""
        if not reads_one_tensor(op):
            return UNUSUAL_ARGUMENTS
        return self.refuses_views(op)

    def refuses_views(self, op: Op) -> str | None:
        """The part of `refuses` that does not look at the arguments."""
        if any(0 in tensor.shape for tensor in (*op.inputs, *op.outputs)):
            return "an axis has no unit"
        for view in self.views(op):
            if view.axes[:1] != (0,) or 0 in view.picks:
                return "it moves or changes the batch axis"
        return None

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """What is known moves along."""
        return [
            self._known(view, inputs[0], tensor.shape)
            for view, tensor in zip(self.views(op), op.outputs, strict=True)
        ]

    def _known(self, view: View, known: Known, shape: tuple[int | None, ...]) -> Known:
        for axis, position in view.fixed.items():
            if axis in known and not np.isnan(known[axis][position]):
                return constant_everywhere(known[axis][position], shape)
        return tidy(view.pick_all(known))

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """What is needed of any result."""
        return [
            union(
                None if needs is None else view.needs(needs, op.inputs[0])
                for view, needs in zip(self.views(op), needed, strict=True)
            )
        ]

    def narrow(self, op: Op, slim: Slim, build: Builder) -> Slim:
        """Drops units of the input that would be in the way of the call."""
        return slim

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same rearrangement of what is carried."""
        views = self.views(op)
        passing = {a for a in range(op.inputs[0].rank) if all(a in view.axes for view in views)}
        slim = build.settle(only(inputs), passing)
        slim = self.narrow(op, slim, build)
        tensors = self.call(op, slim, build)
        return [
            self._result(op, number, view, slim, tensor, build)
            for number, (view, tensor) in enumerate(zip(views, tensors, strict=True))
        ]

    def _result(
        self,
        op: Op,
        number: int,
        view: View,
        slim: Slim,
        tensor: keras.KerasTensor | None,
        build: Builder,
    ) -> Slim:
        source = op.outputs[number]
        if tensor is None:  # nobody reads it: a tensor outside of the network stands for it
            return build.slim(source, keras.KerasTensor(source.shape, source.dtype))
        # Weights behind several results, or behind some units only, cannot change for one.
        alone = len(op.outputs) == 1
        rescale = {
            out: slim.rescale[axis]
            for out, axis in enumerate(view.axes)
            if alone and axis in slim.rescale and axis not in view.picks
        }
        return build.slim(
            source,
            tensor,
            carried=view.pick_all(slim.carried),
            scale=view.pick_all(slim.scale),
            rescale=rescale,
        )
