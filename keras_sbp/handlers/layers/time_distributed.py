"""TimeDistributed: what the layer inside does, at every time step alike."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from keras_sbp import _keras
from keras_sbp.handlers._common import CALLED_WITH_A_MASK
from keras_sbp.program import facts
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, find_handler, register_handler
from keras_sbp.program.program import Op, Tensor
from keras_sbp.program.slim import Slim
from keras_sbp.program.unfold import input_dtype
from keras_sbp.program.units import Known, Needs, only


@register_handler(layers.TimeDistributed)
class TimeDistributed(LayerHandler):
    """What is pruned and what passes is as for the layer inside; all time steps are kept. Opaque
    when that layer would be, is a model, or has another dtype policy, or with a mask.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses what the handler of the layer inside refuses."""
        if len(op.inputs) != 1:
            return CALLED_WITH_A_MASK
        inner = inner_call(op)
        _, reason = find_handler(inner)
        if reason:
            return f"its layer '{inner.name}' is opaque ({reason})"
        if op.operation.layer.dtype_policy != op.operation.dtype_policy:
            return "the layer inside has another dtype policy"
        return None

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """A slice that is constant is so at every step."""
        inner = inner_call(op)
        handler, _ = find_handler(inner)
        return [_with_time(each) for each in handler.values(inner, [_at_one_step(inputs[0])])]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """As at one step; all steps are needed."""
        inner = inner_call(op)
        handler, _ = find_handler(inner)
        needs = handler.needs(inner, [_at_one_step(only(needed))], [_at_one_step(inputs[0])])
        return [None if each is None else _with_time(each) for each in needs]

    def computes(self, op: Op, needed: list[Needs | None]) -> list[Needs | None]:
        """As at one step."""
        inner = inner_call(op)
        handler, _ = find_handler(inner)
        units = handler.computes(inner, [each and _at_one_step(each) for each in needed])
        return [each and _with_time(each) for each in units]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The layer inside made anew for one step, with its repairs, if any, in a small model."""
        given = only(inputs)
        steps = {axis for axis in given.scale if axis > 1}
        slim = build.settle(given, () if op.shared else steps)
        inner = inner_call(op)
        handler, _ = find_handler(inner)
        one_step = _one_step(op, inner, slim)
        known = {inner.inputs[0]: one_step.known}
        known[inner.outputs[0]] = _at_one_step(build.known(op.outputs[0]))
        inside = Builder(known, {(inner, 0): _at_one_step(build.edge(op, 0))})
        [result] = handler.rebuild(inner, [one_step], [_at_one_step(only(needed))], inside)
        wrapper = _wrapper(op, one_step.tensor, result.tensor, build)
        return [
            build.slim(
                op.outputs[0],
                wrapper(slim.tensor),
                carried=_with_time(result.carried),
                scale=_with_time(result.scale),
                rescale=_with_time(result.rescale),
            )
        ]

    def macs(self, op: Op) -> int:
        """Those of the layer inside, at every step."""
        return (op.inputs[0].shape[1] or 1) * facts.macs(inner_call(op))

    def unit_axes(self, op: Op) -> list[int]:
        """Those of the layer inside."""
        return [axis + 1 for axis in facts.unit_axes(inner_call(op))]

    def kernel_rows(self, op: Op, axis: int) -> np.ndarray | None:
        """Those of the layer inside."""
        return facts.kernel_rows(inner_call(op), axis - 1)


def inner_call(op: Op) -> Op:
    """Returns what a `TimeDistributed` does at one time step, as a call of the inner layer."""
    inputs = tuple(_without_time(tensor) for tensor in op.inputs)
    outputs = [_without_time(tensor) for tensor in op.outputs]
    return Op(op.operation.layer, inputs, {}, outputs, shared=op.shared)


def _without_time(tensor: Tensor) -> Tensor:
    return Tensor((tensor.shape[0], *tensor.shape[2:]), tensor.dtype)


def _one_step(op: Op, inner: Op, slim: Slim) -> Slim:
    batch, _, *rest = slim.tensor.shape
    dtype = input_dtype(op.operation, slim.tensor.dtype)
    return Slim(
        inner.inputs[0],
        keras.Input(batch_shape=(batch, *rest), dtype=dtype),
        _at_one_step(slim.known),
        _at_one_step(slim.carried),
        _at_one_step(slim.scale),
        _at_one_step(slim.rescale),
    )


def _wrapper(
    op: Op, inputs: keras.KerasTensor, outputs: keras.KerasTensor, build: Builder
) -> layers.TimeDistributed:
    """Wraps what was made for one step; at later calls of a shared layer, returns the first."""
    old = op.operation
    if op.shared and id(old) in build.new_layers:
        return build.new_layers[id(old)]
    inside = keras.Model(inputs, outputs, name=old.layer.name)
    calls = [operation for operation, *_ in _keras.calls_in_order(inside)]
    if len(calls) == 1 and isinstance(calls[0], layers.Layer):
        inside = calls[0]
    config = _keras.config_of(old, layers.TimeDistributed, build.name(op.name))
    new = layers.TimeDistributed(**config | {"layer": inside})
    build.new_layers[id(old)] = new
    return new


def _at_one_step(by_axis: dict[int, Any]) -> dict[int, Any]:
    return {axis - 1: value for axis, value in by_axis.items() if axis > 1}


def _with_time(by_axis: dict[int, Any]) -> dict[int, Any]:
    return {axis + 1: value for axis, value in by_axis.items()}
