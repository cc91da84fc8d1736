"""Gates: those that are decided, and those that the model has and that stay."""

from __future__ import annotations

import keras
import numpy as np

from keras_sbp.layers import SBPLayer
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, Opaque, register_handler
from keras_sbp.program.program import Op, Scale
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, constant_everywhere, constants, only, tidy

_PER_UNIT = ("mu", "log_sigma", "alive")  # of the weights of a gate


@register_handler(SBPLayer)
class GateThatStays(Opaque):
    """Units pass, and 0 stays 0; the gate's own decision is not asked for."""

    serves_every_call = True

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """Zeros stay."""
        return [{axis: np.where(c == 0, 0.0, np.nan) for axis, c in inputs[0].items()}]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Each unit needs itself."""
        return [needed[0]]


class GateThatNarrows(GateThatStays):
    """A gate of fewer units: those that are frozen are 0 for good."""

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """A frozen unit is 0."""
        (known,) = super().values(op, inputs)
        axis, alive = _axis(op), op.operation.alive
        if not alive.any():
            return [constant_everywhere(0.0, op.inputs[0].shape)]
        if axis is None:
            return [tidy(known)]
        here = constants(known, axis, alive.size)
        return [tidy(known | {axis: np.where(alive, here, 0.0)})]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same gate with the posteriors of the carried units."""
        slim, axis, gate = build.settle(only(inputs)), _axis(op), op.operation
        layer = build.layer(op)
        is_new = not layer.built
        tensor = layer(slim.tensor)
        if is_new:
            units = np.ones(1, bool) if axis is None else slim.carries(axis)
            _take_units(layer, gate, units)
        return [build.slim(op.outputs[0], tensor, carried=slim.carried)]


@register_handler(Scale)
class Gate(LayerHandler):
    """Leaves nothing in the new network: its numbers go into the weights around it."""

    serves_every_call = True

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """A removed unit is 0; a constant is multiplied."""
        axis, factor, shape = _axis(op), op.operation.factor, op.inputs[0].shape
        if not factor.any():
            return [constant_everywhere(0.0, shape)]
        if axis is None:
            return [tidy({a: c * factor[0] for a, c in inputs[0].items()})]
        known = {a: np.where(c == 0, 0.0, np.nan) for a, c in inputs[0].items() if a != axis}
        here = inputs[0].get(axis, np.full(factor.size, np.nan)) * factor
        return [tidy(known | {axis: np.where(factor == 0, 0.0, here)})]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Each unit needs itself."""
        return [needed[0]]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The input itself, to be multiplied where that costs least."""
        slim, axis, factor = only(inputs), _axis(op), op.operation.factor
        if axis is None and not any(slim.source.shape[1:]):
            name, dtype = build.name("sbp_scale"), slim.tensor.dtype
            tensor = keras.layers.Rescaling(float(factor[0]), name=name, dtype=dtype)(slim.tensor)
            return [build.slim(op.outputs[0], tensor)]
        if axis is None:
            axis = _some_axis(slim)
            factor = np.full(slim.source.shape[axis], factor[0])
        slim = build.multiply(slim, axis, factor)
        return [
            build.slim(
                op.outputs[0],
                slim.tensor,
                carried=slim.carried,
                scale=slim.scale,
                rescale=slim.rescale,
            )
        ]


def _take_units(gate: SBPLayer, other: SBPLayer, units: np.ndarray) -> None:
    for new, old in zip(gate.variables, other.variables, strict=True):
        value = keras.ops.convert_to_numpy(old.value)
        new.assign(value[units] if old.name in _PER_UNIT else value)
    gate.kl_weighting.take(other.kl_weighting)


def _axis(op: Op) -> int | None:
    axis = op.operation.axis
    return None if axis is None else axis % op.inputs[0].rank


def _some_axis(slim: Slim) -> int:
    """An axis of known size, best one along which the producer can be rescaled."""
    known = [a for a, n in enumerate(slim.source.shape) if a > 0 and n is not None]
    return next((a for a in slim.rescale if a in known), known[-1])
