"""Builds the slimmed network from an analysed program."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, NamedTuple

import keras

from keras_sbp._keras import input_layer, rename_clashing_operations
from keras_sbp.program import Analysis, Op, Program, Tensor
from keras_sbp.program.builder import Builder
from keras_sbp.program.checks import ask_rebuild
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Needs


class Rebuilt(NamedTuple):
    """A slimmed network.

    Attributes:
        model: the network itself, not compiled.
        layers: its layers by the id of the original operation.
        carried: original tensor → the units that the network has of it; tensors that it does not
            compute are missing.
    """

    model: keras.Model
    layers: dict[int, Any]
    carried: dict[Tensor, Needs]


def rebuild(program: Program, analysis: Analysis) -> Rebuilt:
    """Returns the small network. Its inputs keep their signature, and its layers their names."""
    build = Builder(analysis.known, analysis.edges)
    slims = _inputs(program, build)
    readers = Counter(id(tensor) for tensor in program.outputs)
    readers.update(id(op.inputs[i]) for op, i in analysis.edges)
    for op in program.ops:
        if analysis.is_live(op):
            _rebuild_op(op, analysis, slims, readers, build)
    outputs = [build.settle(slims[tensor]).tensor for tensor in program.outputs]
    rename_clashing_operations(outputs)
    model = keras.Model(
        inputs=_repack(program.input_structure, [slims[t].tensor for t in program.inputs]),
        outputs=_repack(program.output_structure, outputs),
        name=program.model.name,
    )
    carried = {tensor: slim.carried for tensor, slim in slims.items()}
    return Rebuilt(model, build.new_layers, carried)


def _inputs(program: Program, build: Builder) -> dict[Tensor, Slim]:
    slims = {}
    for tensor, x in zip(program.inputs, keras.tree.flatten(program.input_structure), strict=True):
        old = input_layer(x)
        config = old.get_config() | {"name": build.name(old.name)}
        new = keras.layers.InputLayer.from_config(config)
        build.new_layers[id(old)] = new
        slims[tensor] = build.slim(tensor, new.output)
        build.anchor = build.anchor if tensor.dtype == "string" else new.output
    return slims


def _rebuild_op(
    op: Op,
    analysis: Analysis,
    slims: dict[Tensor, Slim],
    readers: Counter,
    build: Builder,
) -> None:
    inputs = []
    for i, tensor in enumerate(op.inputs):
        slim = slims[tensor] if (op, i) in analysis.edges else None
        if slim is not None and op.shared:
            slim = build.align(op, i, slim)
        inputs.append(slim)
    needed = [analysis.needed.get(tensor) for tensor in op.outputs]
    results = ask_rebuild(analysis.handlers[op], op, inputs, needed, build)
    for tensor, slim in zip(op.outputs, results, strict=True):
        # Weights may only be rescaled for a reader while there is no other.
        slims[tensor] = slim if readers[id(tensor)] == 1 else replace(slim, rescale={})


def _repack(structure: Any, tensors: list[keras.KerasTensor]) -> Any:
    return keras.tree.pack_sequence_as(structure, tensors)
