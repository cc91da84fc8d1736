"""Multiply-accumulates of calls that an equation describes, and of attention."""

from __future__ import annotations

import math

from keras import layers

from keras_sbp.graph import keras_internals
from keras_sbp.graph.equation import Equation, matmul_equation, parse
from keras_sbp.graph.program import Op, is_tensor


def product_macs(op: Op) -> int | None:
    """Returns the multiply-accumulates of one example, or None where the call is no product.

    Attention counts query · key and weights · value. Unknown sizes count as 1.
    """
    if isinstance(op.operation, keras_internals.nn_ops.DotProductAttention):
        return _attention_macs(op)
    shapes = _operand_shapes(op)
    equation = _equation(op, [len(shape) for shape in shapes])
    return equation and equation.multiplications(shapes, op.outputs[0].shape)


def _operand_shapes(op: Op) -> list[tuple[int | None, ...]]:
    if isinstance(op.operation, layers.EinsumDense):
        return [op.inputs[0].shape, tuple(op.operation.kernel.shape)]
    return [tuple(x.shape) for x in op.args if is_tensor(x) or hasattr(x, "shape")]


def _equation(op: Op, ranks: list[int]) -> Equation | None:
    operation = op.operation
    if isinstance(operation, layers.EinsumDense):
        return parse(operation.equation, ranks)
    if isinstance(operation, keras_internals.numpy_ops.Einsum):
        return parse(operation.subscripts, ranks)
    if isinstance(operation, keras_internals.numpy_ops.Matmul) and len(ranks) == 2:
        return matmul_equation(*ranks)
    return None


def _attention_macs(op: Op) -> int:
    query, key, value = (x.shape for x in op.inputs[:3])
    rows_columns_heads = math.prod(n or 1 for n in (query[1], key[1], query[2]))
    return rows_columns_heads * ((query[3] or 1) + (value[3] or 1))
