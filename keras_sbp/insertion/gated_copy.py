"""The same network with gates in it, as a new model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras

from keras_sbp._keras import nn_ops
from keras_sbp.program import Analysis, Op, Program, Tensor
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import OPAQUE, LayerHandler, Opaque, find_handler
from keras_sbp.program.program import Cast, Scale, reading
from keras_sbp.program.rebuild import Rebuilt, rebuild
from keras_sbp.program.removal import Site
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Needs, only

# Casts and marks are not Keras's own operations; of attention it mistakes the width of the result.
WITHOUT_TRUE_COPY = (Cast, Scale, nn_ops.DotProductAttention)


def gated_copy(program: Program, gates: Mapping[keras.layers.Layer, Sequence[Site]]) -> keras.Model:
    """Returns a copy of a traced model in which each gate is called at its sites.

    Weights are copied, and so is the state of random generators. The traced model is not
    changed; the gates become layers of the new one.
    """
    return copy_network(with_gates(program, gates), gates).model


def copy_network(program: Program, new_gates: Collection[keras.layers.Layer] = ()) -> Rebuilt:
    """Returns a copy of a program's network, with weights and the state of random generators.

    Args:
        program: a traced program.
        new_gates: layers that the program calls and its model does not have; they are not copied.
    """
    return rebuild(program, _copy_everything(program, new_gates))


class CallGate(Opaque):
    """Calls the new gate itself: its rule need not be one that can be made anew."""

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The gate on the copied tensor."""
        return [build.slim(op.outputs[0], op.operation(only(inputs).tensor))]


def _copy_everything(program: Program, gates: Collection[keras.layers.Layer]) -> Analysis:
    """Knows nothing and needs everything: what is rebuilt from this analysis is a copy."""
    handlers: dict[Op, LayerHandler] = dict.fromkeys(program.ops, OPAQUE)
    for op in program.ops:
        if isinstance(op.operation, WITHOUT_TRUE_COPY):
            handlers[op] = find_handler(op)[0]
        elif isinstance(op.operation, keras.layers.Layer) and op.operation in gates:
            handlers[op] = CallGate()
    tensors = [*program.inputs, *(tensor for op in program.ops for tensor in op.outputs)]
    return Analysis(
        handlers=handlers,
        opaque={},
        known={tensor: {} for tensor in tensors},
        needed={tensor: {} for tensor in tensors},
        edges={(op, i): {} for op in program.ops for i in range(len(op.inputs))},
    )


def with_gates(program: Program, gates: Mapping[Any, Sequence[Site]]) -> Program:
    """Returns the program with calls of gates: each in front of the first that reads behind it.

    Args:
        program: a traced program.
        gates: for each layer or mark the sites at which it is called.
    """
    at: dict[Tensor, list[tuple[Any, Site]]] = {}
    for gate, sites in gates.items():
        for site in sites:
            at.setdefault(site.tensor, []).append((gate, site))
    behind: dict[tuple[Tensor, Any], Tensor] = {}
    ops: list[Op] = []
    for op in program.ops:
        inputs = []
        for i, tensor in enumerate(op.inputs):
            for gate in [gate for gate, site in at.get(tensor, ()) if site.is_seen_by(op, i)]:
                if (tensor, gate) not in behind:
                    output = Tensor(tensor.shape, tensor.dtype, tensor.masked)
                    shared = len({site.tensor for site in gates[gate]}) > 1
                    ops.append(Op(gate, (tensor,), {}, [output], shared=shared))
                    behind[tensor, gate] = output
                tensor = behind[tensor, gate]
            inputs.append(tensor)
        ops.append(reading(op, inputs))
    return replace(program, ops=ops)
