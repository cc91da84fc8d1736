"""Reshape, Flatten, Permute, RepeatVector: the same numbers under other axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_sbp.handlers._common import at_least_one, elements, understood
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.program import Op, Tensor
from keras_sbp.program.slim import Rescale, Slim
from keras_sbp.program.units import Known, Needs, kept, only, tidy


@dataclass(frozen=True)
class Block:
    """Input axes whose numbers become those of some output axes, in row-major order."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def is_same_axis(self) -> bool:
        """One axis that only moves."""
        return len(self.inputs) == len(self.outputs) == 1

    @property
    def merges(self) -> bool:
        """Several axes become one."""
        return len(self.outputs) == 1

    @property
    def splits(self) -> bool:
        """One axis becomes several."""
        return len(self.inputs) == 1 and len(self.outputs) > 1

    def shifted(self, inputs: int, outputs: int) -> Block:
        """The same block behind further axes."""
        return Block(
            tuple(a + inputs for a in self.inputs), tuple(a + outputs for a in self.outputs)
        )


class Regroup(LayerHandler):
    """Follows units through axes that merge or split; axes in no such block are kept whole."""

    def refuses(self, op: Op) -> str | None:
        """Refuses shapes whose axes cannot be matched."""
        return None if self.blocks(op) is not None else "its axes cannot be followed"

    def blocks(self, op: Op) -> list[Block] | None:
        """Returns how axes merge and split, or None where they cannot be followed."""
        before, after = op.inputs[0].shape, op.outputs[0].shape
        blocks = match_axes(before, after)
        if blocks is None:
            blocks = match_last_axes(before, after)
        return None if blocks is None else [without_ones(b, before, after) for b in blocks]

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """A merged unit is constant where one of its slices is; a split one where all agree."""
        known: Known = {}
        for block in understood(self.blocks(op)):
            if block.merges:
                constant = _merge_constants(inputs[0], block.inputs, op.inputs[0])
                if constant is not None:
                    known[block.outputs[0]] = constant
            elif block.splits and block.inputs[0] in inputs[0]:
                sizes = [op.outputs[0].size(a) for a in block.outputs]
                grid = inputs[0][block.inputs[0]].reshape(sizes)
                for i, axis in enumerate(block.outputs):
                    known[axis] = _agreed(np.moveaxis(grid, i, 0).reshape(sizes[i], -1))
        return [tidy(known)]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Input axes are restricted one by one, to the smallest block that holds the need."""
        wanted = only(needed)
        needs: Needs = {}
        for block in understood(self.blocks(op)):
            if block.merges and block.outputs[0] in wanted:
                sizes = [op.inputs[0].size(a) for a in block.inputs]
                grid = wanted[block.outputs[0]].reshape(sizes)
                for i, axis in enumerate(block.inputs):
                    needs[axis] = np.any(np.moveaxis(grid, i, 0).reshape(sizes[i], -1), 1)
            elif block.splits and any(axis in wanted for axis in block.outputs):
                needs[block.inputs[0]] = _outer(
                    [kept(wanted, axis, op.outputs[0].size(axis)) for axis in block.outputs]
                )
        return [needs]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same regrouping of what is carried."""
        blocks = understood(self.blocks(op))
        slim = build.settle(only(inputs), {a for b in blocks if b.merges for a in b.inputs})
        carried: Needs = {}
        scale: dict[int, np.ndarray] = {}
        rescale: dict[int, Rescale] = {}
        for block in blocks:
            if block.merges:
                if any(axis in slim.carried for axis in block.inputs):
                    carried[block.outputs[0]] = _outer([slim.carries(a) for a in block.inputs])
                if any(axis in slim.scale for axis in block.inputs):
                    scale[block.outputs[0]] = _outer([slim.scale_on(a) for a in block.inputs])
                if block.is_same_axis and block.inputs[0] in slim.rescale:
                    rescale[block.outputs[0]] = slim.rescale[block.inputs[0]]
            elif block.splits:
                wanted = only(needed)
                keeps = {a: kept(wanted, a, op.outputs[0].size(a)) for a in block.outputs}
                slim = build.take(slim, block.inputs[0], _outer(list(keeps.values())))
                carried |= keeps
        tensor = self.call(op, slim, carried, build)
        return [build.slim(op.outputs[0], tensor, carried=carried, scale=scale, rescale=rescale)]

    def call(self, op: Op, slim: Slim, carried: Needs, build: Builder) -> keras.KerasTensor:
        """Repeats the call on what is carried."""
        sizes = [
            -1 if n is None else int(carried[a].sum()) if a in carried else n
            for a, n in enumerate(op.outputs[0].shape)
        ]
        return build.layer(op, target_shape=sizes[1:])(slim.tensor)


@register_handler(layers.Reshape)
class Reshape(Regroup):
    """Units and constants pass through axes that merge, split or only move; the target shape
    shrinks. Opaque when its axes cannot be matched, or several sizes are unknown.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses more than one unknown size: the new shape could not be written down."""
        if sum(n is None for n in op.outputs[0].shape[1:]) > 1:
            return "several of its sizes are unknown"
        return super().refuses(op)


@register_handler(layers.Flatten)
class Flatten(Regroup):
    """Features pass one by one, with constants and scales: a removed channel is a block of them.
    Opaque when a size is unknown, unless there is one axis only.
    """

    def blocks(self, op: Op) -> list[Block] | None:
        """One block."""
        shape = op.inputs[0].shape
        axes = list(range(1, len(shape)))
        if op.operation.data_format == "channels_first":
            axes = axes[1:] + axes[:1]
        if len(axes) > 1 and None in shape[1:]:
            return None
        block = Block(tuple(axes), (1,))
        return [without_ones(block, shape, op.outputs[0].shape)] if axes else None

    def call(self, op: Op, slim: Slim, carried: Needs, build: Builder) -> keras.KerasTensor:
        """The same layer."""
        return build.layer(op)(slim.tensor)


def match_axes(before: tuple[int | None, ...], after: tuple[int | None, ...]) -> list[Block] | None:
    """Cuts two shapes (batch first) into the smallest blocks with equal numbers of elements.

    Returns None where an unknown size would have to merge or split, or a size is 0.
    """
    blocks: list[Block] = []
    i = j = 1
    while i < len(before) or j < len(after):
        start_i, start_j = i, j
        i, j = i + 1, j + 1
        if i > len(before) or j > len(after):
            return _append_ones(blocks, before, after, start_i, start_j)
        left, right = before[start_i], after[start_j]
        if left is None or right is None:
            if left != right:
                return None
        else:
            while left != right:
                grow_left = left < right
                position, shape = (i, before) if grow_left else (j, after)
                size = shape[position] if position < len(shape) else None
                if not size or not left or not right:
                    return None
                if grow_left:
                    left, i = left * size, i + 1
                else:
                    right, j = right * size, j + 1
        blocks.append(Block(tuple(range(start_i, i)), tuple(range(start_j, j))))
    return blocks


def match_last_axes(
    before: tuple[int | None, ...], after: tuple[int | None, ...]
) -> list[Block] | None:
    """Cuts as many axes at the end of two shapes as have equal numbers of elements.

    These are followed whatever becomes of the axes before them. Returns None where no such axes
    are left.
    """
    for i in range(1, len(before)):
        for j in range(1, len(after)):
            if elements(before[i:]) == elements(after[j:]) is not None:
                blocks = match_axes((None, *before[i:]), (None, *after[j:]))
                return blocks and [block.shifted(i - 1, j - 1) for block in blocks]
    return None


def without_ones(block: Block, before: tuple, after: tuple) -> Block:
    """Where one axis only moves among axes of size 1, says so; those have nothing to follow."""
    inputs = tuple(a for a in block.inputs if before[a] != 1)
    outputs = tuple(a for a in block.outputs if after[a] != 1)
    return Block(inputs, outputs) if len(inputs) == len(outputs) == 1 else block


def _append_ones(
    blocks: list[Block], before: tuple, after: tuple, i: int, j: int
) -> list[Block] | None:
    """Axes of size 1 at the end belong to the last block."""
    if not blocks or any(n != 1 for n in before[i:] + after[j:]):
        return None
    last = blocks.pop()
    inputs = last.inputs + tuple(range(i, len(before)))
    outputs = last.outputs + tuple(range(j, len(after)))
    sizes = [before[a] for a in inputs] + [after[a] for a in outputs]
    if None in sizes:
        return None
    return [*blocks, Block(inputs, outputs)]


def _outer(arrays: list[np.ndarray]) -> np.ndarray:
    """The product of arrays over all combinations of their entries, in row-major order."""
    result = arrays[0]
    for array in arrays[1:]:
        result = (result[:, None] * array[None, :]).reshape(-1)
    return result


def _merge_constants(known: Known, axes: tuple[int, ...], tensor: Tensor) -> np.ndarray | None:
    merged = None
    for i, axis in enumerate(axes):
        if axis in known:
            shape = [1] * len(axes)
            shape[i] = -1
            here = np.broadcast_to(known[axis].reshape(shape), [tensor.size(a) for a in axes])
            merged = here if merged is None else np.where(np.isnan(merged), here, merged)
    return None if merged is None else merged.reshape(-1).copy()


def _agreed(rows: np.ndarray) -> np.ndarray:
    """Each row's constant where the whole row holds one, NaN elsewhere."""
    return np.where((rows == rows[:, :1]).all(1), rows[:, 0], np.nan)


@register_handler(layers.Permute)
class Permute(LayerHandler):
    """Units, constants and scales pass, each along the axis that it moves to."""

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """What is known moves along."""
        return [_moved(op, inputs[0])]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """What is needed moves back."""
        sources = (0, *op.operation.dims)
        return [{sources[axis]: keep for axis, keep in only(needed).items()}]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same layer."""
        slim = only(inputs)
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
        wanted = only(needed)
        return [{1: wanted[2]} if 2 in wanted else {}]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """As many repetitions as are needed."""
        slim = only(inputs)
        times = at_least_one(kept(only(needed), 1, op.operation.n))
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
