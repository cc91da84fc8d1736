"""Grouped convolution: the channels fall into groups, each filtered by itself.

Channels are seen as arrays (groups, channels per group), the kernel as (groups, taps, inputs per
group, outputs per group).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keras_sbp.handlers._common import numpy_weight
from keras_sbp.handlers._weighted import Weighted
from keras_sbp.program.builder import Builder
from keras_sbp.program.program import Op
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, constants, kept, only


class GroupedConv(Weighted):
    """Keras gives every group the same number of channels. So groups without a needed output go,
    and those that stay keep as many inputs, and outputs, as the one that needs most.

    Several calls of one layer could fill up differently: there, groups go whole or not at all.
    """

    elementwise_only = True

    def reached(self, op: Op, inputs: np.ndarray) -> np.ndarray:
        """Those of the same group."""
        return (_nonzero(_kernel(op)) & _by_group(op, inputs)[:, :, None]).any(1).reshape(-1)

    def reaching(self, op: Op, outputs: np.ndarray) -> np.ndarray:
        """Those of the same group."""
        return (_nonzero(_kernel(op)) & _by_group(op, outputs)[:, None, :]).any(2).reshape(-1)

    def response(self, op: Op, constant: np.ndarray) -> np.ndarray:
        """Within the group."""
        taps = _kernel(op).sum(1, dtype=np.float64)
        return np.einsum("gi,gio->go", _by_group(op, constant), taps).reshape(-1)

    def outputs(self, op: Op, needed: Needs) -> np.ndarray:
        """What is needed, and what fills up groups."""
        wanted = _by_group(op, kept(needed, self.axis(op), op.operation.filters))
        return _completed(op, wanted, np.any(wanted, 1)).reshape(-1)

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Inputs with weight towards a needed output of their group, and what fills up groups."""
        axis, outputs = self.axis(op), self.outputs(op, only(needed))
        constant = constants(inputs[0], axis, op.inputs[0].size(axis))
        free = ~np.isnan(constant) if self.absorbs_constants(op) else constant == 0
        wanted = _by_group(op, self.reaching(op, outputs) & ~free)
        return [{axis: _completed(op, wanted, np.any(_by_group(op, outputs), 1)).reshape(-1)}]

    def computes(self, op: Op, needed: list[Needs | None]) -> list[Needs | None]:
        """What is needed: a unit that fills up its group goes with those of other groups."""
        return needed

    def config(self, op: Op, outputs: np.ndarray) -> dict[str, Any]:
        """The groups that are left, too."""
        groups = int(_by_group(op, outputs).any(1).sum())
        return super().config(op, outputs) | {"groups": groups}

    def settled(self, op: Op, slim: Slim, outputs: np.ndarray, build: Builder) -> Slim:
        """With as many channels in each group that is left."""
        slim = super().settled(op, slim, outputs, build)
        groups, carried = (
            np.any(_by_group(op, outputs), 1),
            _by_group(op, slim.carries(self.axis(op))),
        )
        if not op.shared and not _is_filled_up(carried, groups):
            return build.align(op, 0, slim)
        return slim

    def narrowed(self, op: Op, slim: Slim, outputs: np.ndarray) -> dict[str, np.ndarray]:
        """Fewer and narrower groups; pending scales go into the kernel."""
        axis = self.axis(op)
        carried = slim.carries(axis)
        narrow = _narrowed(_kernel(op), _by_group(op, carried), _by_group(op, outputs))
        if axis in slim.scale:
            narrow = narrow * slim.scale[axis][carried].reshape(len(narrow), 1, -1, 1)
        return {"kernel": _joined(narrow)}

    def macs_per_input(self, op: Op, outputs: np.ndarray) -> float:
        """An input meets the outputs of its group."""
        groups = _by_group(op, outputs).any(1).sum()
        return self.positions(op) * math.prod(op.operation.kernel_size) * outputs.sum() / groups


def _by_group(op: Op, channels: np.ndarray) -> np.ndarray:
    return channels.reshape(op.operation.groups, -1)


def _kernel(op: Op) -> np.ndarray:
    """The kernel as (groups, taps, inputs per group, outputs per group)."""
    kernel, groups = numpy_weight(op.operation.kernel), op.operation.groups
    inputs, outputs = kernel.shape[-2:]
    return kernel.reshape(-1, inputs, groups, outputs // groups).transpose(2, 0, 1, 3)


def _nonzero(kernel: np.ndarray) -> np.ndarray:
    """Which input reaches which output of its group. Shape (groups, inputs, outputs)."""
    return (kernel != 0).any(1)


def _completed(op: Op, wanted: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The wanted channels of these groups, and what must stay with them."""
    if op.shared:
        return np.repeat(groups[:, None], wanted.shape[1], axis=1)
    return _filled_up(wanted, groups)


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
