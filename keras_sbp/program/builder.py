"""Services for handlers that build the slimmed network."""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_sbp import _keras
from keras_sbp.program.copying import copied
from keras_sbp.program.program import Op, Tensor
from keras_sbp.program.registry import stock_class
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, kept

# Copying one number by a `take` costs about as much as this many multiply-accumulates: 30 to 110
# in LiteRT on one x86 core, by `python -m benchmarks.take_cost`.
TAKE_COST = 40


class Builder:
    """Makes layers and small repairs (`take`, scale, offset) in the new network."""

    def __init__(self, known: dict[Tensor, Known], edges: dict[tuple[Op, int], Needs]) -> None:
        self.new_layers: dict[int, Any] = {}  # id of the original operation → its new one
        self.anchor: Any = None  # an input that is no text: its number of examples
        self._known = known
        self._edges = edges
        self._names: set[str] = set()
        self._repairs: dict[tuple, tuple] = {}

    # Layers ---------------------------------------------------------------------------------

    def layer(self, op: Op, **changes: Any) -> keras.layers.Layer:
        """Returns the op's layer, made anew from the stock class with changed config entries.

        A layer with weights that is called several times is made once; one without weights is
        made for every call, since the changes may differ. Weights are left to the caller.
        """
        old = op.operation
        if not op.shared or id(old) not in self.new_layers:
            stock = stock_class(old)
            with _blaming(old):
                config = _keras.config_of(old, stock, self.name(op.name)) | changes
                self.new_layers[id(old)] = stock.from_config(config)
        return self.new_layers[id(old)]

    def call(
        self, op: Op, inputs: Any, weights: Mapping[str, np.ndarray], **changes: Any
    ) -> tuple[keras.layers.Layer, Any]:
        """Calls the op's layer, made anew as by `layer`, and gives it weights.

        They are written at the first call of the layer; later ones have the same.

        Args:
            inputs: what to call it with.
            weights: the new layer's attribute ("kernel", "cell.kernel") → the numbers that it
                holds, in any shape of this size.
            changes: config entries.

        Returns:
            The layer, and what it returns.
        """
        layer = self.layer(op, **changes)
        is_new = not layer.built
        results = layer(inputs)
        for name, value in weights.items() if is_new else ():
            variable = operator.attrgetter(name)(layer)
            variable.assign(np.reshape(value, variable.shape))
        return layer, results

    def repeat(self, op: Op, inputs: list[Slim]) -> list[Slim]:
        """Repeats a call unchanged, with a copy of the operation and of all its state."""
        old = op.operation
        if id(old) not in self.new_layers:
            self.new_layers[id(old)] = copied(op, self.name(op.name), **_known_sizes(op))
        new = self.new_layers[id(old)]
        tensors = {id(t): slim.tensor for t, slim in zip(op.inputs, inputs, strict=True)}
        args, kwargs = keras.tree.map_structure(
            lambda leaf: tensors.get(id(leaf), leaf) if isinstance(leaf, Tensor) else leaf,
            (op.args, op.kwargs),
        )
        results = keras.tree.flatten(new(*args, **kwargs))
        return [self.slim(t, x) for t, x in zip(op.outputs, results, strict=True)]

    def name(self, wanted: str) -> str:
        """Returns `wanted`, with a number behind it where the name is taken.

        A path becomes a name: Keras allows no slashes in it.
        """
        wanted = wanted.replace("/", "_")
        name, number = wanted, 1
        while name in self._names:
            name, number = f"{wanted}_{number}", number + 1
        self._names.add(name)
        return name

    # Tensors --------------------------------------------------------------------------------

    def slim(self, source: Tensor, tensor: keras.KerasTensor, **fields: Any) -> Slim:
        """Wraps a new Keras tensor that stands for `source`, in the source's dtype."""
        if tensor.dtype != source.dtype:
            tensor = keras.ops.cast(tensor, source.dtype)
        return Slim(source, tensor, self._known[source], **fields)

    def known(self, source: Tensor) -> Known:
        """Returns what is known of an original tensor."""
        return self._known[source]

    def edge(self, op: Op, index: int) -> Needs:
        """Returns the units that the op needs of its input number `index`."""
        return self._edges[op, index]

    def take(self, slim: Slim, axis: int, keep: np.ndarray) -> Slim:
        """Restricts a tensor to fewer units along an axis."""
        carried = slim.carries(axis)
        if np.array_equal(carried, keep):
            return slim
        indices = np.flatnonzero(keep[carried]).astype("int32")
        tensor = self._once(
            (slim.tensor, "take", axis, indices.tobytes()),
            lambda: keras.ops.take(slim.tensor, indices, axis=axis),
        )
        return replace(slim, tensor=tensor, carried=slim.carried | {axis: keep}, rescale={})

    def align(self, op: Op, index: int, slim: Slim) -> Slim:
        """Restricts an op's input to exactly what the op needs of it."""
        needs = self.edge(op, index)
        for axis in slim.carried.keys() | needs.keys():
            keep = kept(needs, axis, slim.source.size(axis))
            slim = self.take(slim, axis, keep)
        return slim

    def trim(self, op: Op, slim: Slim, axis: int, macs_per_unit: float) -> Slim:
        """Drops units that the op does not need, where that saves more than the copy costs.

        Args:
            macs_per_unit: multiply-accumulates per example that the op spends on one unit.
        """
        keep = kept(self.edge(op, 0), axis, slim.source.size(axis))
        extra = slim.carries(axis) & ~keep
        positions = math.prod(
            slim.carries(a).sum() if n is not None else 1
            for a, n in enumerate(slim.source.shape)
            if a not in (0, axis)
        )
        if extra.sum() * macs_per_unit > TAKE_COST * keep.sum() * positions:
            return self.take(slim, axis, keep)
        return slim

    def constant(self, op: Op, value: np.ndarray) -> keras.KerasTensor:
        """Returns the same numbers for every example, from the one row of an `Embedding`."""
        example = self.anchor
        while len(example.shape) > 1:
            example = keras.ops.take(example, 0, axis=-1)
        row = keras.ops.cast(keras.ops.zeros_like(example), "int32")
        name, dtype = self.name(f"{op.operation.name}_constant"), op.outputs[0].dtype
        layer = keras.layers.Embedding(1, value.size, name=name, dtype=dtype)
        numbers = layer(row)
        layer.set_weights([value.reshape(1, -1)])
        self.new_layers[id(op.operation)] = layer
        return keras.ops.reshape(numbers, (-1, *value.shape))

    # Scales ---------------------------------------------------------------------------------

    def multiply(self, slim: Slim, axis: int, factor: np.ndarray) -> Slim:
        """Multiplies units by numbers ≥ 0: in the producer's weights if possible, else later."""
        if axis in slim.rescale:
            slim.rescale[axis](factor)
            return slim
        return replace(slim, scale=slim.scale | {axis: slim.scale_on(axis) * factor})

    def settle(self, slim: Slim, but_axes: Collection[int] = ()) -> Slim:
        """Multiplies pending scales in, except along `but_axes`, which the caller deals with."""
        for axis, scale in slim.scale.items():
            if axis not in but_axes:
                slim = self.affine(slim, axis, scale, np.zeros_like(scale))
        return replace(slim, scale={a: s for a, s in slim.scale.items() if a in but_axes})

    def affine(self, slim: Slim, axis: int, scale: np.ndarray, offset: np.ndarray) -> Slim:
        """Returns `slim · scale + offset` along an axis, by one stock layer where it is needed.

        The pending scale of other axes is left alone; that of `axis` is the caller's business.
        """
        carried = slim.carries(axis)
        scale, offset = scale[carried], offset[carried]
        if (scale == 1).all() and (offset == 0).all():
            return slim
        tensor = self._once(
            (slim.tensor, "affine", axis, scale.tobytes(), offset.tobytes()),
            lambda: _affine_layer(slim.tensor, axis, scale, offset, self.name("sbp_scale")),
        )
        return replace(slim, tensor=tensor, rescale={})

    def _once(self, key: tuple, make: Callable[[], keras.KerasTensor]) -> keras.KerasTensor:
        """Two readers that ask for the same repair of a tensor share it."""
        tensor, *rest = key
        kept_alive, made = self._repairs.setdefault((id(tensor), *rest), (tensor, None))
        if made is None:
            made = make()
            self._repairs[id(tensor), *rest] = (kept_alive, made)
        return made


def _known_sizes(op: Op) -> dict[str, Any]:
    """`EinsumDense` declares sizes that it could know; unknown, they would spread."""
    layer = op.operation
    if not isinstance(layer, keras.layers.EinsumDense) or op.shared or "..." in layer.equation:
        return {}
    return {"output_shape": op.outputs[0].shape[1:]}


@contextlib.contextmanager
def _blaming(old: Any) -> Iterator[None]:
    """Names the layer that cannot be made anew."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"Layer '{old.name}' (of type {type(old).__name__}) must be made anew for the pruned "
            "model, but its config does not rebuild it. Expected a layer that round-trips through "
            f"get_config() and from_config(). Received: {type(error).__name__}: {error}. "
            "Give the class a get_config() that returns all arguments of its constructor."
        ) from error


def _affine_layer(
    x: keras.KerasTensor, axis: int, scale: np.ndarray, offset: np.ndarray, name: str
) -> keras.KerasTensor:
    rank = len(x.shape)
    if keras.config.image_data_format() == "channels_first" and rank < 4:
        # Rescaling would reshape its vectors as if x were an image.
        letters = "abcdefgh"[:rank]
        layer = keras.layers.EinsumDense(
            f"{letters},{letters[axis]}->{letters}",
            output_shape=x.shape[1:],
            bias_axes=letters[axis],
            name=name,
            dtype=x.dtype,
        )
        y = layer(x)
        layer.set_weights([scale, offset])
        return y
    shape = [1] * (rank - 1)
    shape[axis - 1] = -1
    # As arrays, since Keras turns lists to float32 first, whatever the layer's dtype.
    layer = keras.layers.Rescaling(
        scale.reshape(shape), offset.reshape(shape), name=name, dtype=x.dtype
    )
    return layer(x)
