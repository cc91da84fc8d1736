"""The weights that make units, one row per unit."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import layers

from keras_sbp.graph import Op
from keras_sbp.graph.coupling import Group
from keras_sbp.graph.handlers.common import numpy_weight
from keras_sbp.graph.handlers.einsum_roles import Roles, equation_of
from keras_sbp.graph.handlers.recurrence import CELLS, Recurrence, why_not
from keras_sbp.graph.time_steps import directions

_LAST = (layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D)
_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
_RECURRENT = (*CELLS, layers.Bidirectional)


def unit_kernels(group: Group, producers: list[Op]) -> list[np.ndarray]:
    """Returns for each layer that makes a group's units its kernel, of shape (units, ...).

    Layers whose kernels do not fall into rows by units are left out. Of recurrent ones the kernels
    of the input count, those of both directions together.
    """
    found: dict[int, np.ndarray] = {}
    for spot in group.sources:
        op = group.makers.get(spot)
        if op in producers:
            rows = _rows(op, spot.axis)
            if rows is not None and len(rows) == spot.size:
                found[id(op.operation)] = rows
    return list(found.values())


def _rows(op: Op, axis: int) -> np.ndarray | None:
    layer = op.operation
    if isinstance(layer, _RECURRENT):
        return _recurrent_rows(op, axis)
    if isinstance(layer, layers.EinsumDense):
        if equation_of(op) is None:
            return None
        roles = Roles.of(op)
        return _by(layer.kernel, roles.kernel.index(roles.output[axis]))
    if isinstance(layer, layers.Embedding):
        return _by(layer.embeddings, -1)
    if isinstance(layer, _SEPARABLE):
        return _by(layer.pointwise_kernel, -1)
    if isinstance(layer, _TRANSPOSED):
        return _by(layer.kernel, -2)
    return _by(layer.kernel, -1) if isinstance(layer, _LAST) else None


def _recurrent_rows(op: Op, axis: int) -> np.ndarray | None:
    parts = [Recurrence.of(each) for each in directions(op.operation) if why_not(each) is None]
    rows = [np.moveaxis(each.kernel, -1, 0).reshape(each.units, -1) for each in parts]
    if not rows or any(len(each) != len(rows[0]) for each in rows):
        return None
    side_by_side = op.outputs[0].shape[axis] > len(rows[0])
    return np.concatenate(rows, axis=0 if side_by_side else 1)


def _by(kernel: Any, axis: int) -> np.ndarray:
    return np.moveaxis(numpy_weight(kernel), axis, 0)
