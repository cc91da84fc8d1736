"""Reductions of `keras.ops`: one number from all those along some axes."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_sbp._keras import numpy_ops
from keras_sbp.handlers._common import at_least_one, elements
from keras_sbp.handlers.ops._shared import UNUSUAL_ARGUMENTS, anew, axes_of, reads_one_tensor
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.program import Op
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, constant_everywhere, only, tidy, wholly_constant


class Reduction(LayerHandler):
    """Along the reduced axes every unit is needed; along the others each unit has its result."""

    homogeneous = False  # numbers ≥ 0 pass

    @abc.abstractmethod
    def of_constants(self, op: Op, constants: np.ndarray, repeats: int | None) -> np.ndarray:
        """Reduces the last axis of an array; each number stands for several (None: unknown)."""

    def refuses(self, op: Op) -> str | None:
        """Refuses the batch axis."""
        if not reads_one_tensor(op):
            return UNUSUAL_ARGUMENTS
        return "it reduces the batch" if 0 in axes_of(op, op.operation.axis) else None

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """Of constants, the reduction of equal numbers."""
        axes, known = axes_of(op, op.operation.axis), inputs[0]
        count = elements([op.inputs[0].shape[axis] for axis in axes])
        reduced = wholly_constant({axis: c for axis, c in known.items() if axis in axes})
        if reduced is not None:
            repeats = None if count is None else count // known[reduced].size
            value = self.of_constants(op, known[reduced], repeats)
            return [tidy(constant_everywhere(float(value), op.outputs[0].shape))]
        return [
            tidy(
                {
                    after: self.of_constants(op, known[axis][:, None], count)
                    for axis, after in _left(op).items()
                    if axis in known
                }
            )
        ]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Everything along the reduced axes."""
        wanted = only(needed)
        return [{axis: wanted[a] for axis, a in _left(op).items() if a in wanted}]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same operation."""
        left = _left(op)
        slim = build.settle(only(inputs), set(left) if self.homogeneous else ())

        def moved(by_axis: Mapping[int, Any]) -> dict[int, Any]:
            return {after: by_axis[axis] for axis, after in left.items() if axis in by_axis}

        return [
            build.slim(
                op.outputs[0],
                anew(op, build)(slim.tensor),
                carried=moved(slim.carried),
                scale=moved(slim.scale),
                rescale=moved(slim.rescale) if self.homogeneous else {},
            )
        ]


def _left(op: Op) -> dict[int, int]:
    """The axes of the input that are not reduced, and where they are in the output."""
    axes = axes_of(op, op.operation.axis)
    left = [axis for axis in range(op.inputs[0].rank) if axis not in axes]
    keepdims = getattr(op.operation, "keepdims", False)
    return {axis: axis if keepdims else i for i, axis in enumerate(left) if axis > 0}


@register_handler(numpy_ops.Mean)
class Mean(Reduction):
    """Units, constants and scales pass along the other axes."""

    homogeneous = True

    def of_constants(self, op: Op, constants: np.ndarray, repeats: int | None) -> np.ndarray:
        """Their mean."""
        return constants.mean(-1)


@register_handler(numpy_ops.Sum)
class Sum(Reduction):
    """Units, constants and scales pass along the other axes; along its own, units that are 0 go."""

    homogeneous = True

    def of_constants(self, op: Op, constants: np.ndarray, repeats: int | None) -> np.ndarray:
        """Their sum."""
        return constants.sum(-1) * (np.nan if repeats is None else repeats)

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """What is not 0, along the reduced axes."""
        needs = only(super().needs(op, needed, inputs))
        for axis in set(axes_of(op, op.operation.axis)) & inputs[0].keys():
            needs[axis] = at_least_one(inputs[0][axis] != 0)
        return [needs]


@register_handler(numpy_ops.Prod)
class Prod(Reduction):
    """Units and constants pass along the other axes."""

    def of_constants(self, op: Op, constants: np.ndarray, repeats: int | None) -> np.ndarray:
        """Their product."""
        return constants.prod(-1) ** (np.nan if repeats is None else repeats)


@register_handler(numpy_ops.Amax, numpy_ops.Max)
class Max(Reduction):
    """Units, constants and scales pass along the other axes."""

    homogeneous = True

    def refuses(self, op: Op) -> str | None:
        """Refuses a smallest result."""
        if getattr(op.operation, "initial", None) is not None:
            return "it starts from a fixed number"
        return super().refuses(op)

    def of_constants(self, op: Op, constants: np.ndarray, repeats: int | None) -> np.ndarray:
        """The largest."""
        return constants.max(-1)


@register_handler(numpy_ops.Amin, numpy_ops.Min)
class Min(Max):
    """Units, constants and scales pass along the other axes."""

    def of_constants(self, op: Op, constants: np.ndarray, repeats: int | None) -> np.ndarray:
        """The smallest."""
        return constants.min(-1)


@register_handler(numpy_ops.Median)
class Median(Reduction):
    """Units, constants and scales pass along the other axes."""

    homogeneous = True

    def of_constants(self, op: Op, constants: np.ndarray, repeats: int | None) -> np.ndarray:
        """The middle one."""
        return np.median(constants, -1)


@register_handler(numpy_ops.Std)
class Std(Reduction):
    """Units, constants and scales pass along the other axes."""

    homogeneous = True

    def of_constants(self, op: Op, constants: np.ndarray, repeats: int | None) -> np.ndarray:
        """Equal numbers do not deviate."""
        return constants.std(-1)


@register_handler(numpy_ops.Var)
class Var(Reduction):
    """Units and constants pass along the other axes."""

    def of_constants(self, op: Op, constants: np.ndarray, repeats: int | None) -> np.ndarray:
        """Equal numbers do not vary."""
        return constants.var(-1)


@register_handler(
    numpy_ops.All,
    numpy_ops.Any,
    numpy_ops.Argmax,
    numpy_ops.Argmin,
    numpy_ops.CountNonzero,
)
class Jumping(Reduction):
    """Units pass along the other axes."""

    def of_constants(self, op: Op, constants: np.ndarray, repeats: int | None) -> np.ndarray:
        """Unknown: rounding might move constants across a jump."""
        return np.full(constants.shape[:-1], np.nan)
