"""Permute and RepeatVector: the same numbers along other axes."""

from __future__ import annotations

from typing import Any

from keras import layers

from keras_sbp.graph.builder import Builder
from keras_sbp.graph.handler import LayerHandler, register_handler
from keras_sbp.graph.handlers.common import at_least_one
from keras_sbp.graph.slim import Slim
from keras_sbp.graph.trace import Op
from keras_sbp.graph.units import Known, Needs, kept


@register_handler(layers.Permute)
class Permute(LayerHandler):
    """Units, constants and scales pass, each along the axis that it moves to."""

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """What is known moves along."""
        return [_moved(op, inputs[0])]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """What is needed moves back."""
        sources = (0, *op.operation.dims)
        return [{sources[axis]: keep for axis, keep in needed[0].items()}]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same layer."""
        slim = inputs[0]
        return [
            build.slim(
                op.outputs[0],
                build.layer(op)(slim.tensor),
                carried=_moved(op, slim.carried),
                scale=_moved(op, slim.scale),
                rescale=_moved(op, slim.rescale),
            )
        ]


def _moved(op: Op, by_axis: dict[int, Any]) -> dict[int, Any]:
    sources = (0, *op.operation.dims)
    return {axis: by_axis[source] for axis, source in enumerate(sources) if source in by_axis}


@register_handler(layers.RepeatVector)
class RepeatVector(LayerHandler):
    """Features, constants and scales pass; repetitions that nobody needs are not made."""

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """Features move behind the repetitions."""
        return [_behind(inputs[0])]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """The features that any repetition needs."""
        return [{1: needed[0][2]} if 2 in needed[0] else {}]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """As many repetitions as are needed."""
        slim = inputs[0]
        times = at_least_one(kept(needed[0], 1, op.operation.n))
        return [
            build.slim(
                op.outputs[0],
                build.layer(op, n=int(times.sum()))(slim.tensor),
                carried=_behind(slim.carried) | {1: times},
                scale=_behind(slim.scale),
                rescale=_behind(slim.rescale),
            )
        ]


def _behind(by_axis: dict[int, Any]) -> dict[int, Any]:
    return {2: by_axis[1]} if 1 in by_axis else {}
