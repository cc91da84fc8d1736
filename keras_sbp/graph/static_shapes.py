"""Sizes that Keras forgets, or mistakes, when layers are called one by one.

`MultiHeadAttention` knows its output's length, but the `EinsumDense` layers inside it declare it as
unknown, and so would every tensor behind them be. Its attention is as wide as the value, while
Keras declares the width of the query.
"""

from __future__ import annotations

from typing import Any

import keras

from keras_sbp.graph.keras_internals import nn_ops
from keras_sbp.graph.program import is_tensor

Shape = tuple[int | None, ...]


def output_shapes(
    operation: Any, args: tuple, kwargs: dict[str, Any], recorded: list[Shape]
) -> list[Shape]:
    """Returns the shapes of a call's outputs, with as few unknown sizes as can be.

    Args:
        operation: what is called.
        args, kwargs: of the call, with tensors of the program.
        recorded: the output shapes that Keras recorded.
    """
    if isinstance(operation, nn_ops.DotProductAttention) and len(args) == 3:
        return [(*args[0].shape[:-1], args[2].shape[-1])]
    if not any(None in shape[1:] for shape in recorded):
        return recorded
    if isinstance(operation, keras.layers.EinsumDense):
        shapes = [einsum_dense_shape(operation, args[0].shape)]
    else:
        shapes = _inferred(operation, args, kwargs)
    return combined(recorded, shapes)


def combined(shapes: list[Shape], others: list[Shape]) -> list[Shape]:
    """Returns the first shapes, with unknown sizes taken from the others where those agree."""
    if [len(shape) for shape in shapes] != [len(other) for other in others]:
        return shapes
    return [
        tuple(m if n is None else n for n, m in zip(shape, other, strict=True))
        for shape, other in zip(shapes, others, strict=True)
    ]


def einsum_dense_shape(layer: keras.layers.EinsumDense, shape: Shape) -> Shape:
    """Returns the output shape of a built `EinsumDense`, by the letters of its equation."""
    operands, output = layer.equation.replace(" ", "").split("->")
    inputs, kernel = operands.split(",")
    free = [str(i) for i in range(len(shape) - len(inputs.replace("...", "")))]
    sizes = dict(zip(_letters(kernel, []), layer.kernel.shape, strict=True))
    sizes |= dict(zip(_letters(inputs, free), shape, strict=True))
    return tuple(sizes[letter] for letter in _letters(output, free))


def _letters(term: str, free: list[str]) -> list[str]:
    """The letters of one term; those in `free` stand for an ellipsis."""
    before, dots, after = term.partition("...")
    return [*before, *(free if dots else []), *after]


def _inferred(operation: Any, args: tuple, kwargs: dict[str, Any]) -> list[Shape]:
    def symbolic(leaf: Any) -> Any:
        return keras.KerasTensor(leaf.shape, leaf.dtype) if is_tensor(leaf) else leaf

    args, kwargs = keras.tree.map_structure(symbolic, (args, kwargs))
    try:
        specs = keras.tree.flatten(operation.compute_output_spec(*args, **kwargs))
        return [tuple(spec.shape) for spec in specs]
    except Exception:  # what Keras recorded is true as well
        return []
