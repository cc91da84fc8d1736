"""Dense and convolution, plain and transposed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from keras_sbp.handlers._common import channel_axis, positions
from keras_sbp.handlers._weighted import Weighted
from keras_sbp.handlers.layers.grouped_convolution import GroupedConv
from keras_sbp.program.activations import is_elementwise
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.linear_map import LinearMap
from keras_sbp.program.program import Op
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs


@register_handler(layers.Dense)
class Dense(Weighted):
    """Input features and output units are pruned; constants go into the bias. Positions pass,
    where the input has more axes than one. Opaque when its activation is a layer.
    """

    width = "units"

    def axis(self, op: Op) -> int:
        """The last."""
        return op.inputs[0].rank - 1

    def passing_axes(self, op: Op) -> range:
        """The positions, unless the activation mixes them."""
        return range(1, self.axis(op)) if is_elementwise(op.operation.activation) else range(0)

    def linear_map(self, op: Op) -> LinearMap:
        """At every position, the features."""
        layer = op.operation
        return LinearMap(layer.kernel, layer.bias if layer.use_bias else None, self.axis(op))


_PLAIN, _GROUPED = Weighted(), GroupedConv()


@register_handler(layers.Conv1D, layers.Conv2D, layers.Conv3D)
class Conv(LayerHandler):
    """Input channels and filters are pruned, constants go into the bias. Zero-padded, a kernel
    larger than 1 lets only removed units that are exactly 0 go. With `groups` > 1, whole groups
    go, and every group that is left keeps as many channels as the fullest. Opaque when its
    activation is a layer or, with groups, does not act on each unit alone.
    """

    def _handler(self, op: Op) -> LayerHandler:
        return _PLAIN if op.operation.groups == 1 else _GROUPED

    def refuses(self, op: Op) -> str | None:
        """Refuses activations that could not be followed."""
        return self._handler(op).refuses(op)

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """An output varies where a varying input reaches it."""
        return self._handler(op).values(op, inputs)

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Inputs with weight towards a needed output."""
        return self._handler(op).needs(op, needed, inputs)

    def computes(self, op: Op, needed: list[Needs | None]) -> list[Needs | None]:
        """What is needed, or everything where the activation mixes units."""
        return self._handler(op).computes(op, needed)

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """A narrower layer."""
        return self._handler(op).rebuild(op, inputs, needed, build)

    def macs(self, op: Op) -> int:
        """The kernel at every position."""
        return self._handler(op).macs(op)

    def kernel_rows(self, op: Op, axis: int) -> np.ndarray | None:
        """The weights of each filter."""
        return self._handler(op).kernel_rows(op, axis)

    def linear_map(self, op: Op) -> LinearMap | None:
        """At every position, what the kernel sees; none where it sees one group only."""
        layer = op.operation
        if layer.groups > 1:
            return None
        bias = layer.bias if layer.use_bias else None
        return ConvolutionMap(layer.kernel, bias, channel_axis(op), layer)


@register_handler(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
class ConvTranspose(Weighted):
    """Input channels that are exactly 0 and filters are pruned; other constants stay, since the
    positions of the output see different parts of the kernel. Opaque when its activation is a
    layer.
    """

    outputs_along = {"kernel": -2, "bias": -1}

    def arrange(self, kernel: np.ndarray) -> np.ndarray:
        """The layer has the outputs before the inputs."""
        return np.swapaxes(kernel, -1, -2)

    def absorbs_constants(self, op: Op) -> bool:
        """Only where every output position sees the one input position and the one tap."""
        return max(op.operation.kernel_size) == max(op.operation.strides) == 1

    def positions(self, op: Op) -> int:
        """The kernel is applied at every position of the input."""
        return positions(op, op.inputs[0])


@dataclass(frozen=True, eq=False)
class ConvolutionMap(LinearMap):
    """A convolution: a row is what its kernel sees at one position.

    Attributes:
        layer: the convolution.
    """

    layer: keras.layers.Layer

    def count_rows(self, shape: tuple[int, ...]) -> int:
        """One for each output position of each example."""
        if self.feature_axis == 1:
            shape = (shape[0], *shape[2:], shape[1])
        return shape[0] * math.prod(self._positions(shape))

    def take_rows(self, x: np.ndarray, which: np.ndarray) -> np.ndarray:
        """What the kernel sees at these positions, zeros beyond the borders."""
        if self.feature_axis == 1:
            x = np.moveaxis(x, 1, -1)
        layer, rank = self.layer, x.ndim - 2
        example, *position = np.unravel_index(which, (len(x), *self._positions(x.shape)))
        x = np.pad(x, [(0, 0), *self._padding(x.shape), (0, 0)])
        index = [example.reshape(-1, *[1] * rank)]
        for axis in range(rank):
            taps = np.arange(layer.kernel_size[axis]) * layer.dilation_rate[axis]
            starts = position[axis] * layer.strides[axis]
            along = [1] * rank
            along[axis] = -1
            index.append(starts.reshape(-1, *[1] * rank) + taps.reshape(along))
        return x[tuple(index)].reshape(len(which), -1)

    def _reach(self) -> list[int]:
        """How far the kernel reaches along each axis."""
        sizes = zip(self.layer.kernel_size, self.layer.dilation_rate, strict=True)
        return [(size - 1) * dilation + 1 for size, dilation in sizes]

    def _positions(self, shape: tuple[int, ...]) -> list[int]:
        """How many output positions there are along each axis."""
        strides = self.layer.strides
        if self.layer.padding in ("same", "causal"):
            return [-(-n // stride) for n, stride in zip(shape[1:-1], strides, strict=True)]
        sizes = zip(shape[1:-1], self._reach(), strides, strict=True)
        return [(n - reach) // stride + 1 for n, reach, stride in sizes]

    def _padding(self, shape: tuple[int, ...]) -> list[tuple[int, int]]:
        if self.layer.padding == "causal":
            return [(self._reach()[0] - 1, 0)]
        if self.layer.padding == "valid":
            return [(0, 0)] * (len(shape) - 2)
        padding = []
        sizes = zip(
            shape[1:-1], self._positions(shape), self._reach(), self.layer.strides, strict=True
        )
        for n, count, reach, stride in sizes:
            missing = max((count - 1) * stride + reach - n, 0)
            padding.append((missing // 2, missing - missing // 2))
        return padding
