"""Embedding: every index becomes a row of a table."""

from __future__ import annotations

import numpy as np
from keras import layers

from keras_sbp.handlers._common import constant_slices, numpy_weight, rescaling, rows_by
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.program import Op
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, kept, only, tidy


@register_handler(layers.Embedding)
class Embedding(LayerHandler):
    """Columns of the table are pruned, its rows stay. Positions pass. With `mask_zero`, whatever
    reads the output is opaque, so all columns stay.
    """

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """A column that holds one number is a constant."""
        table = numpy_weight(op.operation.embeddings).astype(np.float64)
        return [tidy({op.outputs[0].rank - 1: constant_slices(table, 1)})]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """The positions that are needed of the output."""
        if op.shared:
            return [{}]
        last = op.outputs[0].rank - 1
        return [{axis: keep for axis, keep in only(needed).items() if axis != last}]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """A narrower table."""
        slim, last = build.settle(only(inputs)), op.outputs[0].rank - 1
        columns = kept(only(needed), last, op.outputs[0].size(last))
        weights = {"embeddings": numpy_weight(op.operation.embeddings)[:, columns]}
        layer, tensor = build.call(op, slim.tensor, weights, output_dim=int(columns.sum()))
        rescale = rescaling(layer, {"embeddings": 1}, columns)
        return [
            build.slim(
                op.outputs[0],
                tensor,
                carried=slim.carried | {last: columns},
                rescale={} if op.shared else {last: rescale},
            )
        ]

    def kernel_rows(self, op: Op, axis: int) -> np.ndarray | None:
        """The columns of the table."""
        return rows_by(op.operation.embeddings, -1)
