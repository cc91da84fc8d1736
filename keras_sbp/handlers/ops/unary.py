"""Operations of `keras.ops` on each number alone, and softmax."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_sbp._keras import activation_ops, core_ops, math_ops, nn_ops, numpy_ops
from keras_sbp.handlers._common import elements
from keras_sbp.handlers._unitwise import UnitWise
from keras_sbp.handlers.ops._shared import (
    UNUSUAL_ARGUMENTS,
    anew,
    axes_of,
    reads_one_tensor,
)
from keras_sbp.program.activations import on_constants
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.program import Op
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, only, tidy


class UnaryOperation(UnitWise):
    """A function of each number alone."""

    on_each_number = True

    def refuses(self, op: Op) -> str | None:
        """Refuses further arguments."""
        return None if reads_one_tensor(op) else UNUSUAL_ARGUMENTS

    def function(self, op: Op) -> Callable[[Any], Any] | None:
        """The operation's computation."""
        return op.operation.call

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """Constants go through the function; of integers nothing is known."""
        if not _is_float(op):
            return [{}]
        return [tidy(on_constants(self.function(op), inputs[0], op.inputs[0].dtype))]

    def is_homogeneous(self, op: Op) -> bool:
        """No."""
        return False

    def call(self, op: Op, tensor: keras.KerasTensor, build: Builder) -> keras.KerasTensor:
        """The same operation."""
        return anew(op, build)(tensor)


@register_handler(
    math_ops.Erf,
    math_ops.Erfc,
    math_ops.Erfinv,
    math_ops.Rsqrt,
    nn_ops.Celu,
    nn_ops.Elu,
    nn_ops.Gelu,
    nn_ops.HardShrink,
    nn_ops.HardSigmoid,
    nn_ops.HardSilu,
    nn_ops.HardTanh,
    nn_ops.LogSigmoid,
    nn_ops.Relu6,
    nn_ops.Selu,
    nn_ops.Sigmoid,
    nn_ops.Silu,
    nn_ops.SoftShrink,
    nn_ops.Softplus,
    nn_ops.Softsign,
    nn_ops.SparsePlus,
    nn_ops.SparseSigmoid,
    nn_ops.Squareplus,
    nn_ops.TanhShrink,
    nn_ops.Threshold,
    numpy_ops.Arccos,
    numpy_ops.Arccosh,
    numpy_ops.Arcsin,
    numpy_ops.Arcsinh,
    numpy_ops.Arctan,
    numpy_ops.Arctanh,
    numpy_ops.Cbrt,
    numpy_ops.Clip,
    numpy_ops.Cos,
    numpy_ops.Cosh,
    numpy_ops.Deg2rad,
    numpy_ops.Exp,
    numpy_ops.Exp2,
    numpy_ops.Expm1,
    numpy_ops.Log,
    numpy_ops.Log10,
    numpy_ops.Log1p,
    numpy_ops.Log2,
    numpy_ops.NanToNum,
    numpy_ops.Rad2deg,
    numpy_ops.Reciprocal,
    numpy_ops.Sin,
    numpy_ops.Sinc,
    numpy_ops.Sinh,
    numpy_ops.Sqrt,
    numpy_ops.Square,
    numpy_ops.Tan,
    numpy_ops.Tanh,
)
class Smooth(UnaryOperation):
    """Units and constants pass."""


@register_handler(
    core_ops.StopGradient,
    nn_ops.LeakyRelu,
    nn_ops.Relu,
    numpy_ops.Abs,
    numpy_ops.Absolute,
    numpy_ops.Copy,
    numpy_ops.Fabs,
    numpy_ops.Negative,
)
class Homogeneous(UnaryOperation):
    """Units, constants and scales pass."""

    def is_homogeneous(self, op: Op) -> bool:
        """f(s · x) = s · f(x) for s ≥ 0."""
        return True


@register_handler(activation_ops.ReLU)
class ReLU(UnaryOperation):
    """Units and constants pass; scales too, without `max_value` and `threshold`."""

    def is_homogeneous(self, op: Op) -> bool:
        """While nothing is measured against a fixed number."""
        return op.operation.max_value is None and not op.operation.threshold


@register_handler(core_ops.Cast, core_ops.ConvertToTensor, core_ops.SaturateCast)
class Cast(UnaryOperation):
    """Units pass; from one floating-point type to another constants too, and scales where the
    range gets no smaller.
    """

    def is_homogeneous(self, op: Op) -> bool:
        """Up to rounding. What overflows may differ where the range gets smaller."""
        before, after = (_RANGE.get(t.dtype, -1) for t in (op.inputs[0], op.outputs[0]))
        return 0 <= before <= after


_RANGE = {"float16": 0, "bfloat16": 1, "float32": 1, "float64": 2}


@register_handler(
    numpy_ops.Ceil,
    numpy_ops.Floor,
    numpy_ops.Isfinite,
    numpy_ops.Isinf,
    numpy_ops.Isnan,
    numpy_ops.LogicalNot,
    numpy_ops.Round,
    numpy_ops.Sign,
    numpy_ops.Signbit,
    numpy_ops.Trunc,
)
class Jumping(UnaryOperation):
    """Units pass; constants do not, since rounding might move them across a jump."""

    on_each_number = False  # as part of an activation function, it would see constants

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """Nothing is known."""
        return [{}]


@register_handler(nn_ops.LogSoftmax, nn_ops.Softmax)
class Softmax(LayerHandler):
    """Along its axis every unit is needed; units along other axes pass."""

    def refuses(self, op: Op) -> str | None:
        """Refuses the batch axis."""
        if not reads_one_tensor(op):
            return UNUSUAL_ARGUMENTS
        return "its axes include the batch" if 0 in axes_of(op, op.operation.axis) else None

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """Equal logits are equally likely."""
        axes = axes_of(op, op.operation.axis)
        count = elements([op.inputs[0].shape[axis] for axis in axes])
        if count is None:
            return [{}]
        share = 1 / count
        if isinstance(op.operation, nn_ops.LogSoftmax):
            share = math.log(share)
        others = {axis: c for axis, c in inputs[0].items() if axis not in axes}
        return [tidy({axis: np.where(np.isnan(c), c, share) for axis, c in others.items()})]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Everything along its axis; what is needed of the output along others."""
        axes = axes_of(op, op.operation.axis)
        return [{axis: keep for axis, keep in only(needed).items() if axis not in axes}]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same operation."""
        slim = build.settle(only(inputs))
        return [build.slim(op.outputs[0], anew(op, build)(slim.tensor), carried=slim.carried)]


def _is_float(op: Op) -> bool:
    return all("float" in tensor.dtype for tensor in (*op.inputs, *op.outputs))
