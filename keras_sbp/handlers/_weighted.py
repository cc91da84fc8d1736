"""Layers with a kernel: every output unit is a weighted sum over input units."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_sbp.handlers._common import (
    at_least_one,
    bias_of,
    channel_axis,
    numpy_weight,
    pads_with_zeros,
    positions,
    rescaling,
    rows_by,
)
from keras_sbp.program.activations import is_elementwise, is_homogeneous, on_constants
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler
from keras_sbp.program.program import Op
from keras_sbp.program.slim import Rescale, Slim
from keras_sbp.program.units import Known, Needs, constants, kept, only, tidy


class Weighted(LayerHandler):
    """What layers with a kernel, a bias and an activation share.

    Inputs that reach no needed output go; constants that go are added to the bias; pending scales
    go into the kernel. That is seen as an array (taps, inputs, outputs): one tap for Dense, one per
    kernel position for a convolution. Layers whose kernels are something else answer `reached`,
    `reaching`, `response` and `narrowed` themselves.

    Attributes:
        width: the config entry that holds the number of outputs.
        kernels: the layer's attributes that hold kernels.
        outputs_along: attribute of each weight that makes outputs → their axis in it.
        elementwise_only: whether activations that mix units are refused.
    """

    width: str = "filters"
    kernels: tuple[str, ...] = ("kernel",)
    outputs_along: Mapping[str, int] = {"kernel": -1, "bias": -1}
    elementwise_only: bool = False

    # What the kernel does ---------------------------------------------------------------------

    def arrange(self, kernel: np.ndarray) -> np.ndarray:
        """Turns the layer's kernel into (…, inputs, outputs), and such a one back."""
        return kernel

    def kernel(self, op: Op) -> np.ndarray:
        """The kernel as (taps, inputs, outputs)."""
        kernel = self.arrange(numpy_weight(op.operation.kernel))
        return kernel.reshape(-1, *kernel.shape[-2:])

    def bias(self, op: Op) -> np.ndarray:
        """The bias in float64, zeros where there is none. Shape (outputs,)."""
        return bias_of(op.operation, op.outputs[0].size(self.axis(op)))

    def reached(self, op: Op, inputs: np.ndarray) -> np.ndarray:
        """The outputs to which any of these inputs has weight; NaN is one. Shape (outputs,)."""
        return (self.kernel(op) != 0).any(0)[inputs].any(0)

    def reaching(self, op: Op, outputs: np.ndarray) -> np.ndarray:
        """The inputs that have weight towards any of these outputs. Shape (inputs,)."""
        return (self.kernel(op) != 0).any(0)[:, outputs].any(1)

    def response(self, op: Op, constant: np.ndarray) -> np.ndarray:
        """What constant inputs add to each output, away from padded borders."""
        rows = np.flatnonzero(constant)
        return constant[rows] @ self.kernel(op)[:, rows].sum(0, dtype=np.float64)

    def narrowed(self, op: Op, slim: Slim, outputs: np.ndarray) -> dict[str, np.ndarray]:
        """The kernels from the units of `slim` to these outputs, with pending scales in them."""
        axis = self.axis(op)
        narrow = self.kernel(op)[:, slim.carries(axis)][:, :, outputs]
        if axis in slim.scale:
            narrow = narrow * slim.scale[axis][slim.carries(axis), None]
        return {"kernel": self.arrange(narrow)}

    # What the layer is ------------------------------------------------------------------------

    def axis(self, op: Op) -> int:
        """The unit axis of input and output."""
        return channel_axis(op)

    def passing_axes(self, op: Op) -> range:
        """Axes along which every position is computed alone, from the same position."""
        return range(0)

    def absorbs_constants(self, op: Op) -> bool:
        """Tells whether a constant input adds the same number at every output position."""
        return not pads_with_zeros(op)

    def outputs(self, op: Op, needed: Needs) -> np.ndarray:
        """The output units to compute: all of them where the activation mixes units."""
        axis = self.axis(op)
        if not is_elementwise(op.operation.activation):
            return np.ones(op.outputs[0].size(axis), bool)
        return kept(needed, axis, op.outputs[0].size(axis))

    def config(self, op: Op, outputs: np.ndarray) -> dict[str, Any]:
        """The changes of the config that make the layer this narrow."""
        return {self.width: int(outputs.sum())}

    def positions(self, op: Op) -> int:
        """The number of positions at which the kernels are applied."""
        return positions(op, op.outputs[0])

    def macs_per_input(self, op: Op, outputs: np.ndarray) -> float:
        """Multiply-accumulates per example that one input unit costs."""
        return self.positions(op) * math.prod(op.operation.kernel.shape[:-2]) * outputs.sum()

    def macs(self, op: Op) -> int:
        """All kernels at every position."""
        kernels = [getattr(op.operation, name) for name in self.kernels]
        return sum(math.prod(kernel.shape) for kernel in kernels) * self.positions(op)

    def kernel_rows(self, op: Op, axis: int) -> np.ndarray | None:
        """The weights of each output, in the last kernel."""
        name = self.kernels[-1]
        return rows_by(getattr(op.operation, name), self.outputs_along[name])

    # The answers ------------------------------------------------------------------------------

    def refuses(self, op: Op) -> str | None:
        """Refuses layers as activations: they may have weights of their own."""
        activation = op.operation.activation
        if self.elementwise_only and not is_elementwise(activation):
            return "its activation is not known to act on each unit alone"
        return "its activation is a layer" if isinstance(activation, keras.layers.Layer) else None

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """An output varies where a varying input reaches it."""
        activation, axis = op.operation.activation, self.axis(op)
        if not is_elementwise(activation):
            return [{}]
        constant = constants(inputs[0], axis, op.inputs[0].size(axis))
        varies = np.isnan(constant)
        if not self.absorbs_constants(op):
            varies |= constant != 0
        output = self.bias(op) + self.response(op, np.where(varies, 0.0, constant))
        output[self.reached(op, varies)] = np.nan
        return [tidy(on_constants(activation, tidy({axis: output}), op.operation.variable_dtype))]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Inputs with weight towards a needed output; constants go into the bias instead."""
        wanted = only(needed)
        axis, outputs = self.axis(op), self.outputs(op, wanted)
        constant = constants(inputs[0], axis, op.inputs[0].size(axis))
        zero_only = op.shared or not self.absorbs_constants(op)
        free = constant == 0 if zero_only else ~np.isnan(constant)
        needs = {axis: at_least_one(self.reaching(op, outputs) & ~free)}
        if not op.shared:
            needs |= {a: wanted[a] for a in self.passing_axes(op) if a in wanted}
        return [needs]

    def computes(self, op: Op, needed: list[Needs | None]) -> list[Needs | None]:
        """What is needed, or what else must be computed with it."""
        return [needs and needs | {self.axis(op): self.outputs(op, needs)} for needs in needed]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """A narrower layer; pending scales go into a kernel, constants into the bias."""
        axis, outputs = self.axis(op), self.outputs(op, only(needed))
        slim = self.settled(op, only(inputs), outputs, build)
        outputs = self.made(op, slim, outputs)
        bias = (self.bias(op) + self.response(op, slim.absorbed(axis)))[outputs]
        use_bias = op.operation.use_bias or bool(bias.any())
        weights = self.narrowed(op, slim, outputs) | ({"bias": bias} if use_bias else {})
        changes = self.config(op, outputs) | {"use_bias": use_bias}
        layer, tensor = build.call(op, slim.tensor, weights, **changes)
        carried = {a: keep for a, keep in slim.carried.items() if a in self.passing_axes(op)}
        return [
            build.slim(
                op.outputs[0],
                tensor,
                carried=carried | {axis: outputs},
                rescale=self.rescale(op, layer, outputs),
            )
        ]

    def settled(self, op: Op, slim: Slim, outputs: np.ndarray, build: Builder) -> Slim:
        """The input that the new layer reads, with the scales that its weights can take."""
        if op.shared:
            return build.settle(slim)
        axis = self.axis(op)
        slim = build.settle(slim, {axis})
        return build.trim(op, slim, axis, self.macs_per_input(op, outputs))

    def made(self, op: Op, slim: Slim, outputs: np.ndarray) -> np.ndarray:
        """The outputs that the new layer has, which reads `slim`, to compute `outputs`."""
        return outputs

    def rescale(self, op: Op, layer: Any, outputs: np.ndarray) -> dict[int, Rescale]:
        """Multiplies output units where the activation lets numbers ≥ 0 through."""
        if op.shared or not is_homogeneous(layer.activation):
            return {}
        return {self.axis(op): rescaling(layer, self.outputs_along, outputs)}
