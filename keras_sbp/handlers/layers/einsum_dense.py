"""EinsumDense: a product with a kernel over any number of axes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import keras
import numpy as np
from keras import layers

from keras_sbp.handlers._common import at_least_one, numpy_weight, rows_by
from keras_sbp.handlers.layers._einsum_roles import Roles, equation_of, sizes_of
from keras_sbp.program.activations import is_elementwise, is_homogeneous, on_constants
from keras_sbp.program.builder import Builder
from keras_sbp.program.equation import laid_onto, parse, spread
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.program import Op
from keras_sbp.program.shapes import Shape, combined
from keras_sbp.program.slim import Rescale, Slim
from keras_sbp.program.units import Known, Needs, kept, only, tidy


@register_handler(layers.EinsumDense)
class EinsumDense(LayerHandler):
    """Every axis that the kernel shares with the input or the output is pruned, so attention loses
    whole heads and parts of its widths; constants go into the bias. Other axes pass. Opaque when
    its activation is a layer, or its equation sums an axis that the kernel lacks.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses equations whose units cannot be followed, and layers as activations."""
        if isinstance(op.operation.activation, keras.layers.Layer):
            return "its activation is a layer"
        equation = equation_of(op)
        if equation is None:
            return "its equation is not understood"
        inputs, kernel = equation.operands
        batch = inputs[:1]
        if batch in kernel or equation.output[:1] != batch:
            return "its equation moves the batch axis"
        if not set(inputs) <= set(kernel + equation.output):
            return "its equation sums an axis that the kernel lacks"
        if not set(kernel) <= set(sizes_of(op, equation)):
            return "the size of an axis of its kernel is unknown"
        before = dict(zip(inputs, op.inputs[0].shape, strict=True))
        after = zip(equation.output, op.outputs[0].shape, strict=True)
        if any(None not in (n, before.get(a)) and n != before[a] for a, n in after):
            return "Keras mixes up the sizes of the axes under its ellipsis"
        axes = [equation.output.index(a) for a in op.operation.bias_axes or ""]
        if misplaced(op.outputs[0].shape, axes) is not None:
            return "Keras adds its bias along another axis"
        return None

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """An output varies where a varying input reaches it."""
        if not is_elementwise(op.operation.activation):
            return [{}]
        roles, kernel, bias = Roles.of(op), numpy_weight(op.operation.kernel), _bias(op)
        constant = roles.constants(inputs[0])
        varies = np.isnan(constant)
        response = _response(roles, kernel, np.where(varies, 0.0, constant))
        reached = ((kernel != 0) & varies).any(roles.contracted_axes)
        reached = laid_onto(reached, roles.weighted, roles.output)
        output = _activated(op, np.where(reached, np.nan, response + bias))
        alone = _activated(op, bias)
        known: Known = {}
        for letter, size in roles.sizes.items():
            if letter not in roles.output:
                continue
            axis = roles.output.index(letter)
            constants = np.broadcast_to(_agreed(output, axis), size)
            if letter in roles.passing:
                # Positions at which the input is 0 hold the bias alone.
                zero = inputs[0].get(roles.inputs.index(letter), np.full(size, np.nan)) == 0
                constants = np.where(zero, _agreed(alone, axis), constants)
            known[axis] = constants
        return [tidy(known)]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Inputs with weight towards a needed output; constants go into the bias instead."""
        roles, wanted = Roles.of(op), _wanted(op, only(needed))
        relevant = numpy_weight(op.operation.kernel) != 0
        for letter in roles.weighted:
            keep = kept(wanted, roles.output.index(letter), roles.sizes[letter])
            relevant = relevant & spread(keep, letter, roles.kernel)
        constant = roles.constants(inputs[0])
        # Without an axis of its own, the kernel leaves the bias none to lie along.
        zero_only = op.shared or not roles.weighted
        relevant = relevant & ~((constant == 0) if zero_only else ~np.isnan(constant))
        needs: Needs = {}
        for letter in roles.contracted:
            position = roles.kernel.index(letter)
            keep = np.moveaxis(relevant, position, 0).reshape(relevant.shape[position], -1).any(1)
            needs[roles.inputs.index(letter)] = at_least_one(keep)
        # Calls of one layer share its kernel, not the positions that they are called on.
        for letter in roles.common if op.shared else roles.common + roles.passing:
            axis = roles.output.index(letter)
            if axis in wanted:
                needs[roles.inputs.index(letter)] = wanted[axis]
        return [needs]

    def computes(self, op: Op, needed: list[Needs | None]) -> list[Needs | None]:
        """What is needed, or everything where the activation mixes units."""
        return [needs and _wanted(op, needs) for needs in needed]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """A smaller kernel; pending scales go into it, constants into the bias."""
        given = only(inputs)
        old, roles, kernel = op.operation, Roles.of(op), numpy_weight(op.operation.kernel)
        wanted = _wanted(op, only(needed))
        slim = given if op.shared else _trimmed(op, roles, given, wanted, build)
        response = _response(roles, kernel, roles.absorbed(slim))
        linear = is_homogeneous(old.activation) and old.bias is None and not response.any()
        absorbing = "" if op.shared else roles.kernel
        passing = roles.passing if linear else ""
        slim = build.settle(slim, roles.input_axes(absorbing + passing))
        keeps = roles.keeps(slim, wanted)
        sizes = _output_sizes(op, roles, keeps)
        bias_letters = _bias_letters(op, roles, sizes, response)
        weights = {"kernel": _narrowed(roles, kernel, slim, keeps)}
        if bias_letters:
            weights["bias"] = _restricted(roles, _bias(op) + response, keeps, bias_letters)
        layer, tensor = build.call(
            op,
            slim.tensor,
            weights,
            equation=roles.equation,
            output_shape=_output_shape(op, roles, sizes, bias_letters),
            bias_axes="".join(a for a in roles.output if a in bias_letters) or None,
        )
        tensor = _with_sizes(sizes, tensor)
        carried = {roles.output.index(a): k for a, k in keeps.items() if a in roles.output}
        moved = {roles.inputs.index(a): roles.output.index(a) for a in passing}
        scale = {moved[axis]: s for axis, s in slim.scale.items() if axis in moved}
        rescale = {} if op.shared else _rescale(layer, roles, keeps, bias_letters)
        return [build.slim(op.outputs[0], tensor, carried=carried, scale=scale, rescale=rescale)]

    def macs(self, op: Op) -> int:
        """The products that are summed; 0 where its equation is not understood."""
        shapes = op.inputs[0].shape, tuple(op.operation.kernel.shape)
        equation = parse(op.operation.equation, [len(shape) for shape in shapes])
        return equation.multiplications(shapes, op.outputs[0].shape) if equation else 0

    def unit_axes(self, op: Op) -> list[int]:
        """The axes that the kernel gives the output."""
        if equation_of(op) is None:
            return super().unit_axes(op)
        roles = Roles.of(op)
        return sorted(roles.output.index(letter) for letter in roles.free)

    def kernel_rows(self, op: Op, axis: int) -> np.ndarray | None:
        """The weights of each unit along an axis that the kernel gives the output."""
        if equation_of(op) is None:
            return None
        roles = Roles.of(op)
        return rows_by(op.operation.kernel, roles.kernel.index(roles.output[axis]))

    def output_shapes(self, op: Op) -> list[Shape]:
        """By the letters of its equation, of which Keras forgets some."""
        recorded = [tensor.shape for tensor in op.outputs]
        if not any(None in shape[1:] for shape in recorded):
            return recorded
        return combined(recorded, [_shape_by_letters(op)])


def _shape_by_letters(op: Op) -> Shape:
    layer, shape = op.operation, op.inputs[0].shape
    operands, output = layer.equation.replace(" ", "").split("->")
    inputs, kernel = operands.split(",")
    free = [str(i) for i in range(len(shape) - len(inputs.replace("...", "")))]
    sizes = dict(zip(_letters(kernel, []), layer.kernel.shape, strict=True))
    sizes |= dict(zip(_letters(inputs, free), shape, strict=True))
    return tuple(sizes[letter] for letter in _letters(output, free))


def _letters(term: str, free: list[str]) -> list[str]:
    """The letters of one term; those in `free` stand for an ellipsis."""
    before, dots, after = term.partition("...")
    return [*before, *(free if dots else []), *after]


def _wanted(op: Op, needed: Needs) -> Needs:
    """The outputs to compute: all of them where the activation mixes units."""
    return needed if is_elementwise(op.operation.activation) else {}


def _bias(op: Op) -> np.ndarray:
    """The bias in float64, one axis for each of the output, size 1 where it repeats."""
    bias = op.operation.bias
    value = np.zeros(()) if bias is None else numpy_weight(bias).astype(np.float64)
    return value.reshape((1,) * (op.outputs[0].rank - value.ndim) + value.shape)


def _response(roles: Roles, kernel: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """What constant inputs add to each output, one axis for each of the output."""
    if not constant.any():
        return np.zeros((1,) * len(roles.output))
    return laid_onto((kernel * constant).sum(roles.contracted_axes), roles.weighted, roles.output)


def _activated(op: Op, values: np.ndarray) -> np.ndarray:
    """The activation of an array of constants; equal ones stay equal."""
    distinct, places = np.unique(values, return_inverse=True)
    activation, dtype = op.operation.activation, op.operation.variable_dtype
    return on_constants(activation, {0: distinct}, dtype)[0][places].reshape(values.shape)


def _agreed(values: np.ndarray, axis: int) -> np.ndarray:
    """The constant of each slice along an axis, NaN where it holds several."""
    rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    return np.where((rows == rows[:, :1]).all(1), rows[:, 0], np.nan)


def _trimmed(op: Op, roles: Roles, slim: Slim, wanted: Needs, build: Builder) -> Slim:
    """Drops input units that this layer does not need, where that pays or must be."""
    macs = math.prod(n or 1 for n in op.inputs[0].shape[1:])
    for letter in roles.free:
        macs *= int(kept(wanted, roles.output.index(letter), roles.sizes[letter]).sum())
    for letter in roles.contracted:
        slim = build.trim(op, slim, roles.inputs.index(letter), macs / roles.sizes[letter])
    if roles.contracted:
        # A unit dropped from a sum may be dropped for the wanted outputs only.
        for letter in roles.common:
            keep = kept(wanted, roles.output.index(letter), roles.sizes[letter])
            slim = build.take(slim, roles.inputs.index(letter), keep)
    return slim


def _bias_letters(
    op: Op, roles: Roles, sizes: Mapping[str, int | None], response: np.ndarray
) -> set[str]:
    """The letters along which the new bias has entries of its own."""
    letters = set(op.operation.bias_axes or "") | set(roles.weighted if response.any() else "")
    axes = [roles.output.index(a) for a in letters]
    elsewhere = misplaced(list(sizes.values()), axes)
    return letters if elsewhere is None else letters | {roles.output[elsewhere]}


def _output_sizes(op: Op, roles: Roles, keeps: Mapping[str, np.ndarray]) -> dict[str, int | None]:
    """The new size of each letter of the output."""
    sizes = dict(zip(roles.output, op.outputs[0].shape, strict=True))
    return sizes | {a: int(keep.sum()) for a, keep in keeps.items() if a in sizes}


def _output_shape(
    op: Op, roles: Roles, sizes: Mapping[str, int | None], bias_letters: set[str]
) -> tuple[int | None, ...]:
    """The config entry: the sizes behind the batch axis."""
    declared = dict(sizes)
    if op.shared:  # other calls may have other lengths: what was left open stays so
        letters = [a for a in roles.output[1:] if a in op.operation.equation]
        old = dict(zip(letters, op.operation.partial_output_shape, strict=True))
        fixed = bias_letters.union(roles.kernel)
        declared |= {a: old.get(a) for a in sizes if a not in fixed}
    return tuple(declared[a] for a in roles.output[1:])


def _with_sizes(sizes: Mapping[str, int | None], tensor: keras.KerasTensor) -> keras.KerasTensor:
    """States sizes that a layer with several calls leaves open, lest they be unknown onwards."""
    _, *shape = sizes.values()
    if None not in tensor.shape[1:] or None in shape:
        return tensor
    return keras.ops.reshape(tensor, (-1, *shape))


def _narrowed(
    roles: Roles, kernel: np.ndarray, slim: Slim, keeps: Mapping[str, np.ndarray]
) -> np.ndarray:
    for letter in roles.contracted + roles.common:
        scale = slim.scale.get(roles.inputs.index(letter))
        if scale is not None:
            kernel = kernel * spread(scale, letter, roles.kernel)
    return kernel[np.ix_(*(keeps[a] for a in roles.kernel))]


def _restricted(
    roles: Roles, bias: np.ndarray, keeps: Mapping[str, np.ndarray], letters: set[str]
) -> np.ndarray:
    """The bias of what is left, with all the entries that the new layer has."""
    shape = [roles.sizes[a] if a in letters else 1 for a in roles.output]
    keep = [keeps[a] if a in letters else np.ones(1, bool) for a in roles.output]
    return np.broadcast_to(bias, shape)[np.ix_(*keep)]


def _rescale(
    layer: layers.EinsumDense,
    roles: Roles,
    keeps: Mapping[str, np.ndarray],
    bias_letters: set[str],
) -> dict[int, Rescale]:
    """Multiplies output units where the activation lets numbers ≥ 0 through."""

    def along(letter: str) -> Rescale:
        def rescale(factor: np.ndarray) -> None:
            factor = factor[keeps[letter]]
            kernel = numpy_weight(layer.kernel)
            layer.kernel.assign(kernel * spread(factor, letter, roles.kernel))
            if layer.bias is not None:
                bias = numpy_weight(layer.bias)
                letters = roles.output[len(roles.output) - bias.ndim :]
                layer.bias.assign(bias * spread(factor, letter, letters))

        return rescale

    if not is_homogeneous(layer.activation):
        return {}
    able = [a for a in roles.weighted if layer.bias is None or a in bias_letters]
    return {roles.output.index(a): along(a) for a in able}


def misplaced(shape: Sequence[int | None], axes: Collection[int]) -> int | None:
    """Returns the axis along which Keras on TensorFlow adds a bias by mistake, or None.

    `keras.ops.add` takes a second operand with a single size other than 1 for a bias of the last
    axis, or else of axis 1, if that size fits there, even where it lies along another axis.

    Args:
        shape: of the first operand, batch axis included.
        axes: the axes of the first operand along which the bias has entries of its own.
    """
    along = [axis for axis in axes if shape[axis] != 1]
    if len(along) != 1:
        return None
    for axis in (len(shape) - 1, 1):
        if shape[axis] == shape[along[0]]:
            return None if axis == along[0] else axis
    return None
