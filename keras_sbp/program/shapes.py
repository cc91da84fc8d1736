"""Sizes that Keras forgets when layers are called one by one.

`MultiHeadAttention` knows its output's length, but the `EinsumDense` layers inside it declare it as
unknown, and so would every tensor behind them be.
"""

from __future__ import annotations

from typing import Any

import keras

from keras_sbp.program.program import Op, is_tensor

Shape = tuple[int | None, ...]


def completed(op: Op) -> list[Shape]:
    """Returns the shapes of a call's outputs, with what Keras can tell of unknown sizes."""
    recorded = [tensor.shape for tensor in op.outputs]
    if not any(None in shape[1:] for shape in recorded):
        return recorded
    return combined(recorded, _inferred(op))


def combined(shapes: list[Shape], others: list[Shape]) -> list[Shape]:
    """Returns the first shapes, with unknown sizes taken from the others where those agree."""
    if [len(shape) for shape in shapes] != [len(other) for other in others]:
        return shapes
    return [
        tuple(m if n is None else n for n, m in zip(shape, other, strict=True))
        for shape, other in zip(shapes, others, strict=True)
    ]


def _inferred(op: Op) -> list[Shape]:
    def symbolic(leaf: Any) -> Any:
        return keras.KerasTensor(leaf.shape, leaf.dtype) if is_tensor(leaf) else leaf

    args, kwargs = keras.tree.map_structure(symbolic, (op.args, op.kwargs))
    try:
        specs = keras.tree.flatten(op.operation.compute_output_spec(*args, **kwargs))
        return [tuple(spec.shape) for spec in specs]
    except Exception:  # what Keras recorded is true as well
        return []
