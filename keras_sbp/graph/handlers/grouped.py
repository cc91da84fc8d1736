"""Grouped convolution: the channels fall into groups, each filtered by itself.

Channels are seen as arrays (groups, channels per group), the kernel as (groups, taps, inputs per
group, outputs per group).
"""

from __future__ import annotations

import math

import keras
import numpy as np

from keras_sbp.graph.activations import is_elementwise, is_homogeneous, on_constants
from keras_sbp.graph.builder import Builder
from keras_sbp.graph.handler import LayerHandler
from keras_sbp.graph.handlers.common import bias_of, channel_axis, numpy_weight, pads_with_zeros
from keras_sbp.graph.slim import Rescale, Slim
from keras_sbp.graph.trace import Op
from keras_sbp.graph.units import Known, Needs, constants, kept, tidy


class GroupedConv(LayerHandler):
    """Keras gives every group the same number of channels. So groups without a needed output go,
    and those that stay keep as many inputs, and outputs, as the one that needs most.

    Several calls of one layer could fill up differently: there, groups go whole or not at all.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses activations that mix channels, or are layers."""
        if is_elementwise(op.operation.activation):
            return None
        return "its activation is not known to act on each unit alone"

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """An output varies where a varying input of its group reaches it."""
        axis, kernel = channel_axis(op), _kernel(op)
        constant = _constants(op, inputs[0])
        varies = np.isnan(constant)
        if pads_with_zeros(op):
            varies |= constant != 0
        output = _bias(op) + _response(kernel, np.where(varies, 0.0, constant))
        reached = (_nonzero(kernel) & varies[:, :, None]).any(1)
        output = np.where(reached, np.nan, output).reshape(-1)
        activation, dtype = op.operation.activation, op.operation.variable_dtype
        return [tidy(on_constants(activation, tidy({axis: output}), dtype))]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Inputs with weight towards a needed output of their group, and what fills up groups."""
        outputs = _outputs(op, needed[0])
        reaches = (_nonzero(_kernel(op)) & outputs[:, None, :]).any(2)
        constant = _constants(op, inputs[0])
        free = constant == 0 if pads_with_zeros(op) else ~np.isnan(constant)
        wanted = reaches & ~free
        groups = outputs.any(1)
        keep = _whole(wanted, groups) if op.shared else _filled_up(wanted, groups)
        return [{channel_axis(op): keep.reshape(-1)}]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """Fewer and narrower groups; pending scales go into the kernel, constants into the bias."""
        old, axis, kernel = op.operation, channel_axis(op), _kernel(op)
        outputs = _outputs(op, needed[0])
        groups = outputs.any(1)
        slim = build.settle(inputs[0], () if op.shared else {axis})
        if not op.shared:
            slim = build.trim(op, slim, axis, _macs_per_input(op, outputs))
            if not _is_filled_up(_by_group(op, slim.carries(axis)), groups):
                slim = build.align(op, 0, slim)
        bias = (_bias(op) + _response(kernel, _by_group(op, slim.absorbed(axis))))[outputs]
        use_bias = old.use_bias or bool(bias.any())
        layer = build.layer(
            op, filters=int(outputs.sum()), groups=int(groups.sum()), use_bias=use_bias
        )
        first_call = not layer.built
        tensor = layer(slim.tensor)
        if first_call:
            narrow = _narrowed(kernel, _by_group(op, slim.carries(axis)), outputs)
            if axis in slim.scale:
                scale = slim.scale[axis][slim.carries(axis)]
                narrow = narrow * scale.reshape(len(narrow), 1, -1, 1)
            layer.kernel.assign(_joined(narrow).reshape(layer.kernel.shape))
            if use_bias:
                layer.bias.assign(bias)
        flat = outputs.reshape(-1)
        rescale = {} if op.shared else _rescale(layer, axis, flat)
        return [build.slim(op.outputs[0], tensor, carried={axis: flat}, rescale=rescale)]


def _by_group(op: Op, channels: np.ndarray) -> np.ndarray:
    return channels.reshape(op.operation.groups, -1)


def _constants(op: Op, known: Known) -> np.ndarray:
    axis = channel_axis(op)
    return _by_group(op, constants(known, axis, op.inputs[0].shape[axis]))


def _kernel(op: Op) -> np.ndarray:
    """The kernel as (groups, taps, inputs per group, outputs per group)."""
    kernel, groups = numpy_weight(op.operation.kernel), op.operation.groups
    inputs, outputs = kernel.shape[-2:]
    return kernel.reshape(-1, inputs, groups, outputs // groups).transpose(2, 0, 1, 3)


def _bias(op: Op) -> np.ndarray:
    return _by_group(op, bias_of(op.operation, op.operation.filters))


def _nonzero(kernel: np.ndarray) -> np.ndarray:
    """Which input reaches which output of its group. Shape (groups, inputs, outputs)."""
    return (kernel != 0).any(1)


def _response(kernel: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """What constant inputs add to each output, away from padded borders."""
    return np.einsum("gi,gio->go", constant, kernel.sum(1, dtype=np.float64))


def _outputs(op: Op, needed: Needs) -> np.ndarray:
    """The output channels to compute. Shape (groups, outputs per group)."""
    wanted = _by_group(op, kept(needed, channel_axis(op), op.operation.filters))
    groups = wanted.any(1)
    return _whole(wanted, groups) if op.shared else _filled_up(wanted, groups)


def _whole(wanted: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """All channels of these groups."""
    return np.repeat(groups[:, None], wanted.shape[1], axis=1)


def _filled_up(wanted: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """As many channels in each of these groups as the fullest wants, at least one; else none.

    The first channels that are not wanted fill up.
    """
    count = max(1, int(wanted[groups].sum(1).max(initial=0)))
    wanted_first = np.argsort(~wanted, axis=1, kind="stable")[:, :count]
    keep = np.zeros_like(wanted)
    np.put_along_axis(keep, wanted_first, True, axis=1)
    return keep & groups[:, None]


def _is_filled_up(carried: np.ndarray, groups: np.ndarray) -> bool:
    counts = carried.sum(1)
    return not counts[~groups].any() and len(set(counts[groups])) == 1


def _narrowed(kernel: np.ndarray, carried: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """The kernel of the groups, inputs and outputs that are left."""
    groups = outputs.any(1)
    count = int(groups.sum())
    rows = np.nonzero(carried[groups])[1].reshape(count, 1, -1, 1)
    columns = np.nonzero(outputs[groups])[1].reshape(count, 1, 1, -1)
    return np.take_along_axis(np.take_along_axis(kernel[groups], rows, 2), columns, 3)


def _joined(kernel: np.ndarray) -> np.ndarray:
    """Puts the groups' outputs side by side again, as the layer has them."""
    kernel = kernel.transpose(1, 2, 0, 3)
    return kernel.reshape(*kernel.shape[:2], -1)


def _macs_per_input(op: Op, outputs: np.ndarray) -> float:
    layer = op.operation
    positions = math.prod(n or 1 for n in op.outputs[0].shape[1:]) / layer.filters
    return positions * math.prod(layer.kernel_size) * outputs.sum() / outputs.any(1).sum()


def _rescale(layer: keras.layers.Layer, axis: int, outputs: np.ndarray) -> dict[int, Rescale]:
    def rescale(factor: np.ndarray) -> None:
        layer.kernel.assign(numpy_weight(layer.kernel) * factor[outputs])
        if layer.use_bias:
            layer.bias.assign(numpy_weight(layer.bias) * factor[outputs])

    return {axis: rescale} if is_homogeneous(layer.activation) else {}
