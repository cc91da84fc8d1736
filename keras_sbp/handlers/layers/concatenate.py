"""Concatenate: units of several tensors side by side."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.program import Op
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, constants, kept, only, tidy


@register_handler(layers.Concatenate)
class Concatenate(LayerHandler):
    """Units, constants and scales pass, side by side; operands without any needed unit vanish.
    Opaque when it joins along the batch, or an axis of unknown size.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses the batch axis and unknown sizes along the axis."""
        axis = _axis(op)
        if axis == 0 or any(t.shape[axis] is None for t in op.inputs):
            return "the sizes along its axis are unknown"
        others = {tuple(n for a, n in enumerate(t.shape) if a not in (0, axis)) for t in op.inputs}
        return "one of its sizes is known of one operand only" if len(others) > 1 else None

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """Along its axis, side by side; along another, what all operands agree on."""
        axis = _axis(op)
        parts = [
            constants(known, axis, tensor.size(axis))
            for known, tensor in zip(inputs, op.inputs, strict=True)
        ]
        known: Known = {axis: np.concatenate(parts)}
        for other in set.intersection(*(set(k) for k in inputs)) - {axis}:
            rows = np.stack([k[other] for k in inputs])
            known[other] = np.where((rows == rows[0]).all(0), rows[0], np.nan)
        return [tidy(known)]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """An operand none of whose units is needed is not needed at all."""
        wanted = only(needed)
        axis = _axis(op)
        keep = kept(wanted, axis, op.outputs[0].size(axis))
        others = {a: k for a, k in wanted.items() if a != axis}
        parts = np.split(keep, _borders(op))
        if not keep.any():
            parts[0] = np.ones_like(parts[0])
        return [others | {axis: part} if part.any() else None for part in parts]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The operands that are left; a single one needs no concatenation."""
        axis = _axis(op)
        slims = {i: build.settle(s, {axis}) for i, s in enumerate(inputs) if s is not None}
        carried = agree(op, slims, build, axis)
        parts = [np.zeros(t.size(axis), bool) for t in op.inputs]
        scales = [np.ones(t.size(axis)) for t in op.inputs]
        for i, slim in slims.items():
            parts[i], scales[i] = slim.carries(axis), slim.scale_on(axis)
        tensors = [slim.tensor for slim in slims.values()]
        tensor = self.call(op, tensors, build) if len(tensors) > 1 else tensors[0]
        carried[axis] = np.concatenate(parts)
        scale = {axis: np.concatenate(scales)} if any(s.scale for s in slims.values()) else {}
        return [build.slim(op.outputs[0], tensor, carried=carried, scale=scale)]

    def call(self, op: Op, tensors: list[keras.KerasTensor], build: Builder) -> keras.KerasTensor:
        """Repeats the call on the operands that are left."""
        return build.layer(op)(tensors)


def agree(op: Op, slims: dict[int, Slim], build: Builder, but_axis: int | None) -> Needs:
    """Makes operands carry the same units along all axes but one, in place; returns which.

    Args:
        slims: number of the input → what is left of it; all have the same shape but for the axis.
    """
    others = {axis for slim in slims.values() for axis in slim.carried if axis != but_axis}
    for other in others:
        carried = [slim.carries(other) for slim in slims.values()]
        if any(not np.array_equal(each, carried[0]) for each in carried):
            for i, slim in slims.items():
                keep = kept(build.edge(op, i), other, slim.source.size(other))
                slims[i] = build.take(slim, other, keep)
    first = next(iter(slims.values()))
    return {other: first.carries(other) for other in others}


def _axis(op: Op) -> int:
    return op.operation.axis % op.outputs[0].rank


def _borders(op: Op) -> np.ndarray:
    return np.cumsum([t.shape[_axis(op)] for t in op.inputs])[:-1]
