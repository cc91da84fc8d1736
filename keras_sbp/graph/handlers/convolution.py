"""Convolution, plain, grouped and transposed."""

from __future__ import annotations

import math

import numpy as np
from keras import layers

from keras_sbp.graph.builder import Builder
from keras_sbp.graph.handler import LayerHandler, handles
from keras_sbp.graph.handlers.common import channel_axis
from keras_sbp.graph.handlers.grouped import GroupedConv
from keras_sbp.graph.handlers.linear import Linear
from keras_sbp.graph.slim import Slim
from keras_sbp.graph.trace import Op
from keras_sbp.graph.units import Known, Needs


class PlainConv(Linear):
    """Every filter reads every input channel."""

    width = "filters"

    def axis(self, op: Op) -> int:
        """The channel axis."""
        return channel_axis(op)

    def other_axes(self, op: Op) -> range:
        """None: a convolution mixes positions."""
        return range(0)


_PLAIN, _GROUPED = PlainConv(), GroupedConv()


@handles(layers.Conv1D, layers.Conv2D, layers.Conv3D)
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

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """A narrower layer."""
        return self._handler(op).rebuild(op, inputs, needed, build)


@handles(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
class ConvTranspose(PlainConv):
    """Input channels that are exactly 0 and filters are pruned; other constants stay, since the
    positions of the output see different parts of the kernel. Opaque when its activation is a
    layer.
    """

    def arrange(self, kernel: np.ndarray) -> np.ndarray:
        """The layer has the outputs before the inputs."""
        return np.swapaxes(kernel, -1, -2)

    def absorbs_constants(self, op: Op) -> bool:
        """Only where every output position sees the one input position and the one tap."""
        return max(op.operation.kernel_size) == max(op.operation.strides) == 1

    def macs_per_input(self, op: Op, outputs: np.ndarray) -> float:
        """The kernel is applied at every position of the input."""
        shape, axis = op.inputs[0].shape, self.axis(op)
        positions = math.prod(n or 1 for a, n in enumerate(shape) if a not in (0, axis))
        return positions * math.prod(op.operation.kernel_size) * outputs.sum()
