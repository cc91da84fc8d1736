"""Running a traced program: the values of any of its tensors, for a given batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from keras_sbp.program.program import Cast, Op, Program, Scale, Tensor, is_tensor


def run(
    program: Program,
    inputs: Any,
    wanted: Iterable[Tensor],
    weights: Iterable[tuple[keras.Variable, Any]] = (),
) -> dict[Tensor, Any]:
    """Runs a program on one batch at inference, call by call, and returns some of its values.

    Only what the wanted tensors are computed from is run, and a value is forgotten once nothing
    reads it any more. Gates decide as they do when the model is called, so `deciding()` has its
    effect here too.

    Args:
        program: a traced program.
        inputs: a batch, in the structure that the model is called with.
        wanted: the tensors whose values to return.
        weights: (variable, value) pairs: what to use in place of some variables' own values. The
            variables are not changed.

    Returns:
        Each wanted tensor's value, a tensor of the backend.
    """
    wanted = set(wanted)
    ops = _ops_for(program, wanted)
    readers = Counter(tensor for op in ops for tensor in op.inputs)
    readers.update(wanted)
    values = inputs_of(program, inputs)
    replaced = [
        (variable, keras.ops.convert_to_tensor(value, variable.dtype))
        for variable, value in weights
    ]
    with keras.StatelessScope(state_mapping=replaced):
        for op in ops:
            values.update(zip(op.outputs, call(op, values), strict=True))
            for tensor in op.outputs:
                if not readers[tensor]:
                    del values[tensor]
            for tensor in op.inputs:
                readers[tensor] -= 1
                if not readers[tensor]:
                    del values[tensor]
    return {tensor: values[tensor] for tensor in wanted}


def inputs_of(program: Program, inputs: Any) -> dict[Tensor, Any]:
    """Returns the values of a program's input tensors, in their dtypes.

    Args:
        program: a traced program.
        inputs: a batch, in the structure that the model is called with.
    """
    return {
        tensor: keras.ops.convert_to_tensor(array, tensor.dtype)
        for tensor, array in zip(program.inputs, keras.tree.flatten(inputs), strict=True)
    }


def call(op: Op, values: Mapping[Tensor, Any]) -> list[Any]:
    """Returns what an op makes of its inputs at inference, one value per output.

    Args:
        op: of a traced program.
        values: of its input tensors, at least.
    """
    if isinstance(op.operation, Cast):
        return [keras.ops.cast(values[op.inputs[0]], op.operation.dtype)]
    if isinstance(op.operation, Scale):
        return [_scaled(op.operation, values[op.inputs[0]])]
    args, kwargs = keras.tree.map_structure(
        lambda leaf: values[leaf] if is_tensor(leaf) else leaf, (op.args, op.kwargs)
    )
    if "training" in kwargs:  # as `model(x, training=False)` does
        kwargs["training"] = False
    return keras.tree.flatten(op.operation(*args, **kwargs))


def _scaled(scale: Scale, x: Any) -> Any:
    """Computed in float32 at least, as a gate does."""
    shape = [1] * len(x.shape)
    shape[0 if scale.axis is None else scale.axis] = scale.units
    dtype = keras.backend.result_type(x.dtype, "float32")
    factor = keras.ops.convert_to_tensor(scale.factor.reshape(shape), dtype)
    return keras.ops.cast(keras.ops.cast(x, dtype) * factor, x.dtype)


def _ops_for(program: Program, wanted: Iterable[Tensor]) -> list[Op]:
    """The calls that the wanted tensors are computed from, in order."""
    needed = set(wanted)
    ops = []
    for op in reversed(program.ops):
        if not needed.isdisjoint(op.outputs):
            needed.update(op.inputs)
            ops.append(op)
    return ops[::-1]
