"""A case, or several, for every class of `keras.ops` operations that has a handler."""

from __future__ import annotations

import dataclasses

import numpy as np
from keras import ops

from keras_sbp._keras import (
    activation_ops,
    core_ops,
    math_ops,
    nn_ops,
    numpy_ops,
)
from tests.handlers.contract_cases.case import Case

TWO = ((4, 6), (4, 6))

ON_EACH_NUMBER = {
    core_ops: "StopGradient",
    math_ops: "Erf Erfc Erfinv Rsqrt",
    nn_ops: """Celu Elu Gelu HardShrink HardSigmoid HardSilu HardTanh LeakyRelu LogSigmoid Relu
        Relu6 Selu Sigmoid Silu SoftShrink Softplus Softsign SparsePlus SparseSigmoid Squareplus
        TanhShrink""",
    numpy_ops: """Abs Absolute Arccos Arccosh Arcsin Arcsinh Arctan Arctanh Cbrt Ceil Copy Cos Cosh
        Deg2rad Exp Exp2 Expm1 Fabs Floor Isfinite Isinf Isnan Log Log10 Log1p Log2 LogicalNot
        NanToNum Negative Rad2deg Reciprocal Round Sign Signbit Sin Sinc Sinh Sqrt Square Tan Tanh
        Trunc""",
}

# What jumps is not followed over constants, and what is infinite at 0 is no constant there.
KNOWS_NO_ZERO = """Arccosh Ceil Floor Isfinite Isinf Isnan Log Log10 Log2 LogicalNot Reciprocal
    Round Rsqrt Sign Signbit Trunc DivideNoNan Equal FloorDivide Fmod Greater GreaterEqual Heaviside
    Less LessEqual LogicalAnd LogicalOr LogicalXor Mod NotEqual TrueDivide All Any Argmax Argmin
    CountNonzero"""

# Which of two numbers that are equal up to rounding is larger is anybody's guess.
ZERO = {"constants": (0.0,)}

# What is defined on some numbers only.
RANGES = {
    "Arccos": (-0.9, 0.9),
    "Arccosh": (1.1, 3.0),
    "Arcsin": (-0.9, 0.9),
    "Arctanh": (-0.9, 0.9),
    "Erfinv": (-0.9, 0.9),
    "Log": (0.1, 3.0),
    "Log10": (0.1, 3.0),
    "Log1p": (0.1, 3.0),
    "Log2": (0.1, 3.0),
    "Rsqrt": (0.1, 3.0),
    "Sqrt": (0.1, 3.0),
}

OF_TWO_NUMBERS = """Arctan2 DivideNoNan Equal FloorDivide Fmax Fmin Fmod Greater GreaterEqual
    Heaviside Hypot Less LessEqual Logaddexp Logaddexp2 LogicalAnd LogicalOr LogicalXor Mod NotEqual
    TrueDivide"""


def numbers(*shape: int) -> np.ndarray:
    return np.linspace(-1, 2, int(np.prod(shape))).reshape(shape).astype("float32")


def of(call, *shapes, **options) -> Case:
    return Case(call=call, shapes=shapes or ((4, 6),), **options)


def gated(cls: type) -> dict:
    return {"inputs": () if cls.__name__ in KNOWS_NO_ZERO.split() else (-1,)}


def unary(cls: type) -> Case:
    lowest, highest = RANGES.get(cls.__name__, (None, None))
    return of(lambda x: cls()(x), lowest=lowest, highest=highest, **gated(cls))


def binary(cls: type) -> Case:
    return of(lambda x, y: cls()(x, y), *TWO, **ZERO, **gated(cls))


ARITHMETIC: dict[type, list[Case]] = {
    numpy_ops.Add: [
        of(lambda x, y: x + y, *TWO),
        of(lambda x: x + 0.5),
        of(lambda x: ops.add(numbers(6), x)),
        of(lambda x, y: x + y, (4, 6), (1, 6)),
    ],
    numpy_ops.Subtract: [of(lambda x, y: x - y, *TWO), of(lambda x: 1.0 - x)],
    numpy_ops.Multiply: [
        of(lambda x, y: x * y, *TWO),
        of(lambda x: x * 2.0),
        of(lambda x, y: x * y, (4, 6), (4, 1)),
    ],
    numpy_ops.Divide: [
        of(lambda x: x / 2.0),
        of(lambda x, y: x / y, *TWO, lowest=0.5, highest=2, inputs=()),
    ],
    numpy_ops.Maximum: [of(ops.maximum, *TWO), of(lambda x: ops.maximum(x, 0.3))],
    numpy_ops.Minimum: [of(ops.minimum, *TWO), of(lambda x: ops.minimum(x, 0.3))],
    numpy_ops.Power: [of(lambda x: x**3)],
    numpy_ops.Where: [of(ops.where, (4, 6), *TWO, dtypes=("bool", "float", "float"), inputs=())],
    numpy_ops.Clip: [of(lambda x: ops.clip(x, -0.4, 0.4))],
    nn_ops.Threshold: [of(lambda x: ops.threshold(x, 0.3, -1.0))],
    activation_ops.ReLU: [of(lambda x: activation_ops.ReLU(max_value=1.0)(x))],
    core_ops.Cast: [of(lambda x: ops.cast(x, "float32"))],
    core_ops.ConvertToTensor: [of(lambda x: core_ops.ConvertToTensor("float32")(x))],
    core_ops.SaturateCast: [of(lambda x: core_ops.SaturateCast("float32")(x))],
}

AXES: dict[type, list[Case]] = {
    numpy_ops.ExpandDims: [of(lambda x: ops.expand_dims(x, 1))],
    numpy_ops.Squeeze: [of(lambda x: ops.squeeze(x, 1), (1, 4, 6))],
    numpy_ops.Reshape: [
        of(lambda x: ops.reshape(x, (-1, 24))),
        of(lambda x: ops.reshape(x, (-1, 4, 2, 3)), inputs=(1,), outputs=(1,)),
    ],
    numpy_ops.Moveaxis: [of(lambda x: ops.moveaxis(x, 1, -1), inputs=(1, 2), outputs=(1, 2))],
    numpy_ops.Swapaxes: [of(lambda x: ops.swapaxes(x, 1, 2), inputs=(1, 2), outputs=(1, 2))],
    numpy_ops.Transpose: [
        of(lambda x: ops.transpose(x, (0, 3, 1, 2)), (2, 4, 6), inputs=(1, 3), outputs=(1, 2))
    ],
    numpy_ops.Concatenate: [
        of(lambda x, y: ops.concatenate([x, y], -1), (4, 6), (4, 5)),
        of(lambda x, y: ops.concatenate([x, y], 1), (4, 6), (3, 6)),
    ],
    numpy_ops.Stack: [of(lambda x, y: ops.stack([x, y], 1), *TWO)],
    numpy_ops.Pad: [
        of(lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 0)))),
        of(lambda x: ops.pad(x, ((0, 0), (0, 0), (2, 1)))),
    ],
    numpy_ops.GetItem: [
        of(lambda x: x[:, 1:, ::2]),
        of(lambda x: x[:, 2]),
        of(lambda x: x[..., None, 1:5]),
    ],
    numpy_ops.Take: [
        of(lambda x: ops.take(x, np.array([5, 0, 0, 3]), -1)),
        of(lambda x: ops.take(x, 2, 1)),
    ],
    numpy_ops.Flip: [of(lambda x: ops.flip(x, -1))],
    numpy_ops.Roll: [of(lambda x: ops.roll(x, 1, 1))],
    numpy_ops.Split: [
        of(lambda x: ops.split(x, 3, -1)),
        of(lambda x: ops.split(x, [1, 3], 1), inputs=(-1,), outputs=(-1,)),
    ],
    numpy_ops.ArraySplit: [of(lambda x: ops.array_split(x, 4, -1), outputs=())],
    core_ops.Unstack: [of(lambda x: ops.unstack(x, axis=1))],
    numpy_ops.Tile: [of(lambda x: ops.tile(x, (1, 1, 2)))],
    numpy_ops.BroadcastTo: [
        of(lambda x: ops.broadcast_to(x, (2, 4, 6)), (1, 6), batch=2),
    ],
    numpy_ops.Repeat: [of(lambda x: ops.repeat(x, 2, -1)), of(lambda x: ops.repeat(x, 2, 1))],
}

REDUCTIONS: dict[type, list[Case]] = {
    cls: [
        of(lambda x, cls=cls: cls(axis=1)(x), **gated(cls)),
        of(lambda x, cls=cls: cls(axis=-1, keepdims=True)(x), outputs=(), inputs=()),
    ]
    for cls in (
        numpy_ops.All,
        numpy_ops.Amax,
        numpy_ops.Amin,
        numpy_ops.Any,
        numpy_ops.Argmax,
        numpy_ops.Argmin,
        numpy_ops.CountNonzero,
        numpy_ops.Max,
        numpy_ops.Mean,
        numpy_ops.Median,
        numpy_ops.Min,
        numpy_ops.Prod,
        numpy_ops.Std,
        numpy_ops.Sum,
        numpy_ops.Var,
    )
}
REDUCTIONS[numpy_ops.CountNonzero].pop()
for cls in (numpy_ops.Argmax, numpy_ops.Argmin):
    REDUCTIONS[cls] = [dataclasses.replace(case, **ZERO) for case in REDUCTIONS[cls]]
SOFTMAX: dict[type, list[Case]] = {
    cls: [of(lambda x, cls=cls: cls(axis=1)(x))] for cls in (nn_ops.LogSoftmax, nn_ops.Softmax)
}

PRODUCTS: dict[type, list[Case]] = {
    numpy_ops.Einsum: [
        of(lambda x, y: ops.einsum("bqd,bkd->bqk", x, y), (4, 6), (3, 6), outputs=(1, 2)),
        of(lambda x: ops.einsum("bqd,dk->bqk", x, numbers(6, 5))),
    ],
    numpy_ops.Matmul: [
        of(lambda x, y: ops.matmul(x, y), (4, 6), (6, 3)),
        of(lambda x: ops.matmul(x, numbers(6, 5))),
    ],
    nn_ops.DotProductAttention: [
        of(
            ops.dot_product_attention,
            (4, 2, 3),
            (5, 2, 3),
            (5, 2, 3),
            inputs=(2, 3),
            outputs=(2, 3),
        ),
        of(ops.dot_product_attention, (4, 4, 3), (5, 2, 3), (5, 2, 3), outputs=(3,)),
    ],
}

OPERATIONS: dict[type, list[Case]] = {
    **{
        getattr(module, name): [unary(getattr(module, name))]
        for module, names in ON_EACH_NUMBER.items()
        for name in names.split()
    },
    **{
        getattr(numpy_ops, name): [binary(getattr(numpy_ops, name))]
        for name in OF_TWO_NUMBERS.split()
    },
    **ARITHMETIC,
    **AXES,
    **REDUCTIONS,
    **SOFTMAX,
    **PRODUCTS,
}
