"""What a network's inputs may be: by the layers that read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_sbp._keras import core_ops, input_layer, nn_ops, numpy_ops, sublayers
from keras_sbp.comparing import values
from keras_sbp.comparing.drawing import Slot
from keras_sbp.comparing.values import Values
from keras_sbp.program.facts import macs
from keras_sbp.program.program import Cast, Op, Program, Tensor

_MOST_SIZES = 16


def slots_of(program: Program) -> list[Slot]:
    """Returns the inputs of a program, with the values that the network may take.

    An index into a table lies within it, a word is in a vocabulary (or is not, where the layer
    takes unknown ones), an image has the range that a rescaling expects. Integers that are only
    computed with take the whole range of 8 bits.
    """
    paths = keras.tree.flatten_with_path(program.input_structure)
    return [
        Slot(
            input_layer(x).name,
            tensor.shape,
            tensor.dtype,
            _values(program, tensor),
            also=(str(path[-1]) if path else "",),
        )
        for (path, x), tensor in zip(paths, program.inputs, strict=True)
    ]


def sizes_in(program: Program) -> list[int]:
    """Returns the sizes inside a program that an unknown one might have to agree with."""
    shapes = [tensor.shape[1:] for op in program.ops for tensor in op.outputs]
    shapes += [w.shape for op in program.ops for w in getattr(op.operation, "weights", ())]
    found = {n for shape in shapes for n in shape if n is not None and 1 < n <= 512}
    return sorted(found, reverse=True)[:_MOST_SIZES]


def macs_of(program: Program) -> int:
    """Returns the multiply-accumulates of one example; unknown sizes count as 1."""
    return sum(macs(op) for op in program.ops)


def _values(program: Program, tensor: Tensor) -> tuple[Values, ...]:
    """Kinds of values for an input, the best first."""
    usual = values.usual(tensor.dtype)
    readers = list(_readers(program, tensor))
    sizes = [n for op, read in readers for n in _table_sizes(op, read)]
    if sizes and tensor.dtype != "string":
        return values.integers(0, max(0, min(sizes) - 1)), values.integers(0, 1)
    for op, _ in readers:
        for cls in type(op.operation).__mro__:
            if cls in _EXPECTED:
                found = _EXPECTED[cls](op.operation, tensor)
                if found is not None:
                    return found, *usual
    if "int" in tensor.dtype and len(usual) == 1 and any(_computes(op) for op, _ in readers):
        return values.integers(0, min(255, int(np.iinfo(tensor.dtype).max))), *usual
    return usual


def _readers(program: Program, tensor: Tensor) -> Iterator[tuple[Op, Tensor]]:
    """The calls that do something with an input's values, and what they read of them.

    Calls that only move values, or change their dtype, are passed by.
    """
    moved = {tensor}
    for op in program.ops:
        for read in op.inputs:
            if read in moved:
                if isinstance(op.operation, _MOVES):
                    moved.update(op.outputs)
                if not isinstance(op.operation, _MOVES) or _is_cast_to_float(op):
                    yield op, read
                break


def _is_cast_to_float(op: Op) -> bool:
    return isinstance(op.operation, Cast | core_ops.Cast) and "float" in op.outputs[0].dtype


def _computes(op: Op) -> bool:
    """Whether integers become real numbers, as an image's do."""
    return op.not_unfolded == "" and all("float" in tensor.dtype for tensor in op.outputs)


def _table_sizes(op: Op, read: Tensor) -> Iterator[int]:
    """Of what an op looks up by what it reads: how many entries there are."""
    operation = op.operation
    if isinstance(operation, keras.layers.Layer):
        # Where integers go in a layer of layers is not known: to its tables, it may be.
        inside = sublayers(operation) if "int" in read.dtype else []
        for layer in (operation, *inside):
            for cls, size in _TABLES.items():
                entries = size(layer) if isinstance(layer, cls) else None
                if entries is not None:
                    yield entries
    elif isinstance(operation, nn_ops.OneHot):
        yield operation.num_classes
    elif isinstance(operation, numpy_ops.Take | numpy_ops.TakeAlongAxis):
        shape, axis = getattr(op.args[0], "shape", ()), operation.axis
        if read is not op.args[0] and axis is not None and shape[axis] is not None:
            yield shape[axis]


_TABLES: dict[type, Callable[[Any], int | None]] = {
    layers.Embedding: lambda layer: layer.input_dim,
    layers.CategoryEncoding: lambda layer: layer.num_tokens,
    layers.StringLookup: lambda layer: layer.vocabulary_size() if layer.invert else None,
    layers.IntegerLookup: lambda layer: layer.vocabulary_size() if layer.invert else None,
}


def _of_lookup(layer: Any, tensor: Tensor) -> Values:
    known = layer.get_vocabulary(include_special_tokens=False)
    unknown = layer.num_oov_indices > 0
    if tensor.dtype == "string":
        return values.words([str(word) for word in known], unknown=unknown)
    numbers = [int(n) for n in known]
    strange = [max(numbers, default=0) + 1] if unknown else []
    return values.choices([*numbers, *strange], "integers of a vocabulary")


def _of_hashing(layer: Any, tensor: Tensor) -> Values:
    if tensor.dtype == "string":
        return values.words([f"word {i}" for i in range(64)], unknown=False)
    return values.integers(0, min(999, int(np.iinfo(tensor.dtype).max)))


def _of_discretization(layer: Any, tensor: Tensor) -> Values | None:
    return values.around(layer.bin_boundaries) if layer.bin_boundaries else None


def _of_rescaling(layer: Any, tensor: Tensor) -> Values | None:
    scale, offset = np.asarray(layer.scale, float), np.asarray(layer.offset, float)
    if "float" not in tensor.dtype or not scale.all():
        return None
    return values.normal(_suiting(-offset / scale, tensor), _suiting(1 / np.abs(scale), tensor))


def _of_normalization(layer: Any, tensor: Tensor) -> Values | None:
    if "float" not in tensor.dtype or layer.invert:
        return None
    mean, variance = (keras.ops.convert_to_numpy(x) for x in (layer.mean, layer.variance))
    return values.normal(_suiting(mean, tensor), _suiting(np.sqrt(variance), tensor))


def _suiting(numbers: np.ndarray, tensor: Tensor) -> np.ndarray | float:
    """Numbers that broadcast against a batch of an input: their mean where they do not."""
    shape = [1] * (tensor.rank - numbers.ndim) + list(numbers.shape)
    suits = numbers.ndim <= tensor.rank and all(map(_equal_or_1, shape, tensor.shape))
    return numbers if suits and numbers.ndim else float(numbers.mean())


def _equal_or_1(size: int, other: int | None) -> bool:
    return size in (1, other)


_EXPECTED: dict[type, Callable[[Any, Tensor], Values | None]] = {
    layers.TextVectorization: lambda layer, _: values.sentences(
        [word for word in layer.get_vocabulary() if word not in ("", "[UNK]")]
    ),
    layers.StringLookup: _of_lookup,
    layers.IntegerLookup: _of_lookup,
    layers.Hashing: _of_hashing,
    layers.HashedCrossing: _of_hashing,
    layers.Discretization: _of_discretization,
    layers.Rescaling: _of_rescaling,
    layers.Normalization: _of_normalization,
}

_MOVES = (
    Cast,
    core_ops.Cast,
    layers.Identity,
    layers.Flatten,
    layers.Reshape,
    layers.Permute,
    layers.RepeatVector,
    layers.Concatenate,
    layers.Dropout,
    numpy_ops.Reshape,
    numpy_ops.Ravel,
    numpy_ops.Squeeze,
    numpy_ops.ExpandDims,
    numpy_ops.Transpose,
    numpy_ops.Swapaxes,
    numpy_ops.Moveaxis,
    numpy_ops.Concatenate,
    numpy_ops.Stack,
    numpy_ops.Split,
    numpy_ops.GetItem,
    numpy_ops.Flip,
    numpy_ops.Roll,
    numpy_ops.Repeat,
    numpy_ops.Tile,
    numpy_ops.BroadcastTo,
    numpy_ops.Clip,
    numpy_ops.Minimum,
    numpy_ops.Maximum,
)
