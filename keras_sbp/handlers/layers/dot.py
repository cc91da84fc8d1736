"""The Dot layer: sums of products of two tensors along one axis of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import layers

from keras_sbp.handlers._common import at_least_one
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.program import Op
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, constant_everywhere, constants, every, only, tidy


@register_handler(layers.Dot)
class Dot(LayerHandler):
    """Units along the axis that is summed over go where one operand is exactly 0 (with
    `normalize`, where both are). Units along other axes pass, and of constants only 0.
    """

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """What is 0 in an operand is 0 in the product."""
        if any((c == 0).all() for known in inputs for c in known.values()):
            return [constant_everywhere(0.0, op.outputs[0].shape)]
        zeros = [{a: np.where(c == 0, 0.0, np.nan) for a, c in known.items()} for known in inputs]
        return [tidy(_outwards(op, zeros))]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """What is needed of the output, and of the summed axis what is not 0."""
        wanted = only(needed)
        needs: list[Needs] = [
            {axis: wanted[out] for axis, out in places.items() if out in wanted}
            for places in _places(op)
        ]
        axes = _axes(op)
        size = op.inputs[0].shape[axes[0]]
        if size is not None:
            zero = [constants(inputs[i], axes[i], size) == 0 for i in (0, 1)]
            free = zero[0] & zero[1] if op.operation.normalize else zero[0] | zero[1]
            for i in (0, 1):
                needs[i][axes[i]] = at_least_one(~free)
        return [*needs]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same layer on operands that agree on the summed axis; other scales pass.

        Not so when it normalises: a unit's own size would be divided out.
        """
        places, axes, normalizes = _places(op), _axes(op), op.operation.normalize
        slims = [
            build.settle(slim, () if normalizes else places[i])
            for i, slim in enumerate(every(inputs))
        ]
        a, b = (slim.carried.get(axis) for slim, axis in zip(slims, axes, strict=True))
        if a is not b and (a is None or b is None or not np.array_equal(a, b)):
            slims = [build.align(op, i, slim) for i, slim in enumerate(slims)]
        return [
            build.slim(
                op.outputs[0],
                build.layer(op)([slim.tensor for slim in slims]),
                carried=_outwards(op, [slim.carried for slim in slims]),
                scale=_outwards(op, [slim.scale for slim in slims]),
                rescale={} if normalizes else _outwards(op, [slim.rescale for slim in slims]),
            )
        ]


def _axes(op: Op) -> tuple[int, int]:
    """The summed axis of either operand."""
    axes = op.operation.axes
    first, second = (axes, axes) if isinstance(axes, int) else axes
    return first % op.inputs[0].rank, second % op.inputs[1].rank


def _places(op: Op) -> list[dict[int, int]]:
    """For either operand, where its other axes lie in the output: those of the first lead."""
    places: list[dict[int, int]] = []
    place = 1
    for tensor, summed in zip(op.inputs, _axes(op), strict=True):
        others = [axis for axis in range(1, tensor.rank) if axis != summed]
        places.append({axis: place + i for i, axis in enumerate(others)})
        place += len(others)
    return places


def _outwards(op: Op, by_axis: Sequence[Mapping[int, Any]]) -> dict[int, Any]:
    """Moves what belongs to the operands' axes to the output's."""
    return {
        out: own[axis]
        for own, places in zip(by_axis, _places(op), strict=True)
        for axis, out in places.items()
        if axis in own
    }
