"""Arithmetic of `keras.ops`: numbers of several tensors, or of a tensor and constants."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_sbp._keras import numpy_ops
from keras_sbp.handlers.layers import merging
from keras_sbp.handlers.layers.merging import Operand
from keras_sbp.handlers.ops._shared import UNUSUAL_ARGUMENTS, anew
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import register_handler
from keras_sbp.program.program import Op, Tensor
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Needs


class Elementwise(merging.Merge):
    """Each number of the result depends on the numbers at the same place."""

    on_each_number = True

    def refuses(self, op: Op) -> str | None:
        """Refuses what is no tensor and no number, and shapes that broadcast in unknown ways."""
        if op.kwargs:
            return UNUSUAL_ARGUMENTS
        if any(isinstance(each, keras.Variable) for each in op.args):
            return "it reads a variable"
        if not all(isinstance(each, Tensor) or _is_fixed(each) for each in op.args):
            return UNUSUAL_ARGUMENTS
        return _unclear_shapes(op)

    def operands(self, op: Op) -> list[Operand]:
        """The arguments, in order; fixed numbers among them."""
        tensors, operands = 0, []
        for each in op.args:
            if isinstance(each, Tensor):
                operands.append(Operand(each.shape, tensors))
                tensors += 1
            else:
                array = keras.ops.convert_to_numpy(each).astype(np.float64)
                array = array.reshape((1,) * (op.outputs[0].rank - array.ndim) + array.shape)
                operands.append(Operand(array.shape, fixed=each, array=array))
        return operands

    def combine(self, op: Op, constants: list[np.ndarray]) -> np.ndarray:
        """The operation itself, on units that are constant in every operand."""
        known = ~np.isnan(constants).any(0)
        result = np.full(known.shape, np.nan)
        if known.any() and all("float" in tensor.dtype for tensor in op.inputs):
            operands = zip(self.operands(op), constants, strict=True)
            values = op.operation.call(*(_argument(op, o, c[known]) for o, c in operands))
            result[known] = keras.ops.convert_to_numpy(values)
        return result

    def scaled_axes(self, op: Op) -> frozenset[int]:
        """All axes of a single tensor where the operation is homogeneous in it."""
        if len(op.inputs) > 1 or not self.is_homogeneous(op):
            return frozenset()
        before, after = op.inputs[0].shape, op.outputs[0].shape
        return frozenset(a for a, n in enumerate(before) if a > 0 and n == after[a] is not None)

    def is_homogeneous(self, op: Op) -> bool:
        """Tells whether numbers ≥ 0 pass from the only tensor to the result."""
        return False

    def call(
        self, op: Op, slims: dict[int, Slim], carried: Needs, build: Builder
    ) -> keras.KerasTensor:
        """The same operation; of fixed numbers only those of the carried units."""
        arguments = [
            _narrowed(operand, carried) if operand.index is None else slims[operand.index].tensor
            for operand in self.operands(op)
        ]
        return anew(op, build)(*arguments)


@register_handler(
    numpy_ops.Arctan2,
    numpy_ops.Fmax,
    numpy_ops.Fmin,
    numpy_ops.Hypot,
    numpy_ops.Logaddexp,
    numpy_ops.Logaddexp2,
    numpy_ops.Power,
    numpy_ops.Where,
)
class Continuous(Elementwise):
    """A unit stays while it is needed of the result; constants pass."""


@register_handler(
    numpy_ops.DivideNoNan,
    numpy_ops.Equal,
    numpy_ops.FloorDivide,
    numpy_ops.Fmod,
    numpy_ops.Greater,
    numpy_ops.GreaterEqual,
    numpy_ops.Heaviside,
    numpy_ops.Less,
    numpy_ops.LessEqual,
    numpy_ops.LogicalAnd,
    numpy_ops.LogicalOr,
    numpy_ops.LogicalXor,
    numpy_ops.Mod,
    numpy_ops.NotEqual,
)
class Jumping(Elementwise):
    """A unit stays while it is needed of the result; constants do not pass, since rounding might
    move them across a jump.
    """

    on_each_number = False

    def combine(self, op: Op, constants: list[np.ndarray]) -> np.ndarray:
        """Nothing is known."""
        return np.full_like(constants[0], np.nan)


@register_handler(numpy_ops.Add)
class Add(merging.Add, Elementwise):
    """Units and constants pass; tensors that are wholly constant vanish."""


@register_handler(numpy_ops.Subtract)
class Subtract(merging.Subtract, Elementwise):
    """Units and constants pass; tensors that are wholly constant vanish."""


@register_handler(numpy_ops.Multiply)
class Multiply(merging.Multiply, Elementwise):
    """Units and constants pass, and scales through a product with fixed numbers. A unit that is 0
    on one side goes on both; tensors that are wholly constant vanish.
    """

    def is_homogeneous(self, op: Op) -> bool:
        """c · (s · x) = s · (c · x), for negative c too."""
        return True


@register_handler(numpy_ops.Divide, numpy_ops.TrueDivide)
class Divide(merging.FoldingMerge, Elementwise):
    """Units and constants pass, and scales through a division by fixed numbers. A divisor that is
    wholly constant vanishes.
    """

    def folds(self, op: Op, index: int, constant: np.ndarray) -> bool:
        """Divisors other than 0."""
        return index == 1 and super().folds(op, index, constant) and bool((constant != 0).all())

    def fold(
        self, op: Op, constants: dict[int, np.ndarray], size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The divisor becomes a factor."""
        return 1 / constants[1], np.zeros(size)

    def is_homogeneous(self, op: Op) -> bool:
        """In the dividend."""
        return isinstance(op.args[0], Tensor)


class Extreme(Elementwise):
    """Units and constants pass, and scales where a tensor is compared with 0."""

    def is_homogeneous(self, op: Op) -> bool:
        """max(s · x, 0) = s · max(x, 0)."""
        return not any(o.array.any() for o in self.operands(op) if o.array is not None)


@register_handler(numpy_ops.Maximum)
class Maximum(merging.Maximum, Extreme):
    """Units and constants pass, and scales where a tensor is compared with 0."""


@register_handler(numpy_ops.Minimum)
class Minimum(merging.Minimum, Extreme):
    """Units and constants pass, and scales where a tensor is compared with 0."""


def _is_fixed(argument: Any) -> bool:
    is_number = isinstance(argument, bool | int | float | np.ndarray | np.generic)
    if not is_number and not keras.ops.is_tensor(argument):
        return False
    return not np.iscomplexobj(keras.ops.convert_to_numpy(argument))


def _unclear_shapes(op: Op) -> str | None:
    """Why the shapes of the operands leave open which units meet, if they do."""
    shape = op.outputs[0].shape
    for each in op.args:
        own = np.shape(each) if not isinstance(each, Tensor) else each.shape
        if isinstance(each, Tensor) and len(own) not in (0, len(shape)):
            return "its operands differ in rank"
        if not isinstance(each, Tensor) and len(own) == len(shape) and own[:1] not in ((), (1,)):
            return "its constant follows the batch axis"
        for size, whole in zip(own[::-1], shape[1:][::-1], strict=False):
            if (size is None) != (whole is None) and size != 1:
                return "one of its sizes is known of one operand only"
    return None


def _argument(op: Op, operand: Operand, constants: np.ndarray) -> Any:
    """What stands for an operand when the operation is tried on constants."""
    if operand.index is not None:
        return keras.ops.convert_to_tensor(constants, op.inputs[operand.index].dtype)
    if np.ndim(operand.fixed) == 0:
        return operand.fixed
    return _like(operand.fixed, constants)


def _narrowed(operand: Operand, carried: Needs) -> Any:
    """The fixed numbers of the carried units."""
    shape = () if operand.array is None else operand.array.shape
    narrowing = {
        axis: keep
        for axis, keep in carried.items()
        if axis < len(shape) and shape[axis] == keep.size and not keep.all()
    }
    if not narrowing:
        return operand.fixed
    array = keras.ops.convert_to_numpy(operand.fixed).reshape(shape)
    for axis, keep in narrowing.items():
        array = array.compress(keep, axis)
    return _like(operand.fixed, array)


def _like(fixed: Any, array: np.ndarray) -> Any:
    """Returns numbers as the same kind of array as given ones."""
    dtype = keras.backend.standardize_dtype(fixed.dtype)
    if keras.ops.is_tensor(fixed):
        return keras.ops.convert_to_tensor(array, dtype)
    return array.astype(dtype)
