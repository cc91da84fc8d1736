"""Depthwise and separable convolution: every channel is filtered alone at first."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import layers

from keras_sbp.handlers._common import numpy_weight
from keras_sbp.handlers._weighted import Weighted
from keras_sbp.program.activations import is_homogeneous
from keras_sbp.program.handler import register_handler
from keras_sbp.program.program import Op
from keras_sbp.program.slim import Rescale, Slim
from keras_sbp.program.units import Known, Needs, only


@register_handler(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
class DepthwiseConv(Weighted):
    """A channel goes with all outputs that `depth_multiplier` gives it; constants pass where
    nothing is padded. Opaque when its activation does not act on each unit alone.
    """

    elementwise_only = True

    def reached(self, op: Op, inputs: np.ndarray) -> np.ndarray:
        """The outputs of these channels, unless the kernel is 0 there."""
        return ((_depthwise(op.operation.kernel) != 0).any(0) & inputs[:, None]).reshape(-1)

    def response(self, op: Op, constant: np.ndarray) -> np.ndarray:
        """Each channel adds to its outputs."""
        taps = _depthwise(op.operation.kernel).sum(0, dtype=np.float64)
        return (constant[:, None] * taps).reshape(-1)

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """An input channel is needed while one of its output channels is."""
        wanted = only(needed)
        axis = self.axis(op)
        if axis not in wanted:
            return [{}]
        return [{axis: np.any(wanted[axis].reshape(-1, op.operation.depth_multiplier), 1)}]

    def config(self, op: Op, outputs: np.ndarray) -> dict[str, Any]:
        """Nothing: the input says how many channels there are."""
        return {}

    def made(self, op: Op, slim: Slim, outputs: np.ndarray) -> np.ndarray:
        """All of each channel that is carried: output c·m + j comes from input c."""
        return np.repeat(slim.carries(self.axis(op)), op.operation.depth_multiplier)

    def narrowed(self, op: Op, slim: Slim, outputs: np.ndarray) -> dict[str, np.ndarray]:
        """The kernels of the carried channels; pending scales go into them."""
        return {"kernel": _of_carried(op.operation.kernel, slim, self.axis(op))}

    def macs_per_input(self, op: Op, outputs: np.ndarray) -> float:
        """All taps of its own outputs."""
        kernel = op.operation.kernel.shape
        return self.positions(op) * kernel[-1] * math.prod(kernel[:-2])

    def rescale(self, op: Op, layer: Any, outputs: np.ndarray) -> dict[int, Rescale]:
        """The kernel has its outputs along two axes."""

        def rescale(factor: np.ndarray) -> None:
            factor = factor[outputs]
            by_channel = factor.reshape(-1, layer.depth_multiplier)
            layer.kernel.assign(numpy_weight(layer.kernel) * by_channel)
            if layer.use_bias:
                layer.bias.assign(numpy_weight(layer.bias) * factor)

        offered = is_homogeneous(layer.activation) and not op.shared
        return {self.axis(op): rescale} if offered else {}

    def kernel_rows(self, op: Op, axis: int) -> np.ndarray | None:
        """None: its units are those of its input."""
        return None


@register_handler(layers.SeparableConv1D, layers.SeparableConv2D)
class SeparableConv(Weighted):
    """Input channels, with the channels between its two halves that they own, and filters are
    pruned; constants go into the bias as in a convolution. Opaque when its activation does not
    act on each unit alone.
    """

    kernels = ("depthwise_kernel", "pointwise_kernel")
    outputs_along = {"pointwise_kernel": -1, "bias": -1}
    elementwise_only = True

    def reached(self, op: Op, inputs: np.ndarray) -> np.ndarray:
        """Through any channel between the halves."""
        return np.any(_reaches(op)[inputs], 0)

    def reaching(self, op: Op, outputs: np.ndarray) -> np.ndarray:
        """Through any channel between the halves."""
        return np.any(_reaches(op)[:, outputs], 1)

    def response(self, op: Op, constant: np.ndarray) -> np.ndarray:
        """Through all channels between the halves."""
        depthwise, pointwise = _halves(op)
        return constant @ np.einsum("cm,cmo->co", depthwise.sum(0, dtype=np.float64), pointwise)

    def narrowed(self, op: Op, slim: Slim, outputs: np.ndarray) -> dict[str, np.ndarray]:
        """What is left of both halves; pending scales go into the first."""
        layer, axis = op.operation, self.axis(op)
        # Input c owns the channels c·m … c·m + m − 1 between the halves.
        between = np.repeat(slim.carries(axis), layer.depth_multiplier)
        return {
            "depthwise_kernel": _of_carried(layer.depthwise_kernel, slim, axis),
            "pointwise_kernel": numpy_weight(layer.pointwise_kernel)[..., between, :][..., outputs],
        }

    def macs_per_input(self, op: Op, outputs: np.ndarray) -> float:
        """All taps of its channels between the halves, and their ways to the outputs."""
        layer = op.operation
        per_channel = math.prod(layer.kernel_size) + outputs.sum()
        return self.positions(op) * layer.depth_multiplier * per_channel


def _depthwise(kernel: Any) -> np.ndarray:
    """A depthwise kernel as (taps, inputs, multiplier)."""
    kernel = numpy_weight(kernel)
    return kernel.reshape(-1, *kernel.shape[-2:])


def _of_carried(kernel: Any, slim: Slim, axis: int) -> np.ndarray:
    """A depthwise kernel for the carried channels, with pending scales in it."""
    scaled = numpy_weight(kernel) * slim.scale_on(axis)[:, None]
    return scaled[..., slim.carries(axis), :]


def _halves(op: Op) -> tuple[np.ndarray, np.ndarray]:
    """The depthwise kernel as (taps, inputs, multiplier), the pointwise as (…, outputs)."""
    depthwise = _depthwise(op.operation.depthwise_kernel)
    pointwise = numpy_weight(op.operation.pointwise_kernel)
    return depthwise, pointwise.reshape(*depthwise.shape[1:], -1)


def _reaches(op: Op) -> np.ndarray:
    """Which input has weight towards which output. Shape (inputs, outputs)."""
    depthwise, pointwise = _halves(op)
    return ((depthwise != 0).any(0)[:, :, None] & (pointwise != 0)).any(1)
