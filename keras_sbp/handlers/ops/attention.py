"""Dot-product attention over heads: softmax(query · key) · value."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_sbp import _keras
from keras_sbp.handlers._common import at_least_one
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.program import Op, is_tensor
from keras_sbp.program.shapes import Shape
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, constants, every, only, tidy

# The axes of query, key, value and output.
ROWS, HEADS, WIDTH = 1, 2, 3


@register_handler(_keras.nn_ops.DotProductAttention)
class DotProductAttention(LayerHandler):
    """Heads go from query, key and value together; a key head shared by several query heads goes
    with the last of them. Width that is 0 in query or key goes from both, with the scale as it
    was; width of the value passes. Opaque when sizes are unknown, or its logits are capped.
    """

    def refuses(self, op: Op) -> str | None:
        """Refuses calls whose heads and widths cannot be followed."""
        if len(op.args) != 3 or not all(is_tensor(x) for x in op.args):
            return "its query, key and value are not three tensors"
        if not set(op.kwargs) <= {"bias", "mask", "scale"} or is_tensor(op.kwargs.get("scale")):
            return "its arguments are not understood"
        if op.operation.attn_logits_soft_cap is not None:
            return "it caps its logits"
        (*_, heads, width), (*_, groups, key_width), (*_, same, value_width) = (
            x.shape for x in op.args
        )
        if None in (heads, width, groups, value_width):
            return "its heads or widths are unknown"
        if width != key_width or groups != same or heads % groups:
            return "its query, key and value do not fit each other"
        if any(not _is_simple(extra, heads) for extra in _extras(op).values()):
            return "its mask or bias is not understood"
        return None

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """What is 0 in the value is 0; without a mask, other constants are averaged to themselves.

        A fully masked row need not have weights that sum to 1.
        """
        value = {a: c for a, c in inputs[2].items() if a in (HEADS, WIDTH)}
        if HEADS in value:
            value[HEADS] = value[HEADS][_owners(op)]
        if _extras(op):
            value = {a: np.where(c == 0, 0.0, np.nan) for a, c in value.items()}
        return [tidy(value)]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Each head needs itself; a product of width with 0 on one side is not needed."""
        query, key, value = op.args[0].shape, op.args[1].shape, only(needed)
        zero = [constants(known, WIDTH, query[WIDTH]) == 0 for known in inputs[:2]]
        needs: list[Needs] = [{WIDTH: at_least_one(~(zero[0] | zero[1]))} for _ in zero]
        needs.append({WIDTH: value[WIDTH]} if WIDTH in value else {})
        if HEADS in value:
            of_key = np.bincount(_owners(op)[value[HEADS]], minlength=key[HEADS]) > 0
            for each, keep in zip(needs, (value[HEADS], of_key, of_key), strict=True):
                each[HEADS] = keep
        rows = value.get(ROWS) if _rows_pass(op) else None
        if rows is not None:
            needs[0][ROWS] = rows
        for extra in (x for x in _extras(op).values() if is_tensor(x)):
            along = {1: value.get(HEADS), 2: rows}
            needs.append(
                {a: k for a, k in along.items() if k is not None and extra.shape[a] == k.size}
            )
        return [*needs]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same call on fewer heads and less width, with the scale of the original width."""
        slims = [
            build.align(op, i, build.settle(slim, {HEADS, WIDTH} if i == 2 else ()))
            for i, slim in enumerate(every(inputs))
        ]
        query, key, value = slims[:3]
        extras = _narrowed_extras(op, slims)
        tensor = attend(
            query.tensor,
            *_with_heads(op, query, key, value),
            scale=_scale(op, query),
            is_causal=op.operation.is_causal,
            flash_attention=op.operation.flash_attention,
            **extras,
        )
        carried = {a: k for a, k in query.carried.items() if a in (ROWS, HEADS)}
        carried |= {a: k for a, k in value.carried.items() if a == WIDTH}
        owners = _owners(op)
        scale = {a: s[owners] if a == HEADS else s for a, s in value.scale.items()}
        own_heads = owners.size == key.source.shape[HEADS]
        passing = {WIDTH, HEADS} if own_heads else {WIDTH}
        rescale = {a: r for a, r in value.rescale.items() if a in passing}
        return [build.slim(op.outputs[0], tensor, carried=carried, scale=scale, rescale=rescale)]

    def macs(self, op: Op) -> int:
        """Query · key, and weights · value."""
        query, key, value = (x.shape for x in op.inputs[:3])
        rows_columns_heads = math.prod(n or 1 for n in (query[1], key[1], query[2]))
        return rows_columns_heads * ((query[3] or 1) + (value[3] or 1))

    def output_shapes(self, op: Op) -> list[Shape]:
        """As wide as the value, while Keras declares the width of the query."""
        if len(op.args) != 3:
            return super().output_shapes(op)
        return [(*op.args[0].shape[:-1], op.args[2].shape[-1])]


def _owners(op: Op) -> np.ndarray:
    """The key and value head of each query head."""
    heads, groups = (x.shape[HEADS] for x in op.args[:2])
    return np.arange(heads) // (heads // groups)


def _extras(op: Op) -> dict[str, Any]:
    """The mask and the bias, where given; in the order of the op's inputs."""
    return {name: op.kwargs[name] for name in ("bias", "mask") if op.kwargs.get(name) is not None}


def _is_simple(extra: Any, heads: int) -> bool:
    """Tells whether a mask or bias broadcasts to (batch, heads, rows, columns) in a known way."""
    if is_tensor(extra):
        return extra.rank == 4 and extra.shape[1] in (1, heads)
    is_array = isinstance(extra, np.ndarray) or keras.ops.is_tensor(extra)
    is_array = is_array and not isinstance(extra, keras.Variable)
    return is_array and (len(extra.shape) < 3 or extra.shape[-3] in (1, heads))


def _rows_pass(op: Op) -> bool:
    """Tells whether query rows are computed alone, so that some may go."""
    rows = op.args[0].shape[ROWS]
    if op.operation.is_causal or rows is None or op.outputs[0].shape[ROWS] != rows:
        return False
    shapes = [extra.shape for extra in _extras(op).values()]
    return all(len(shape) < 2 or shape[-2] in (1, rows) for shape in shapes)


def _narrowed_extras(op: Op, slims: list[Slim]) -> dict[str, Any]:
    """The mask and the bias, for the heads and rows that the query carries."""
    waiting = iter(slims[3:])
    carried = slims[0].carried
    narrowed = {}
    for name, extra in _extras(op).items():
        if is_tensor(extra):
            narrowed[name] = next(waiting).tensor
            continue
        array = keras.ops.convert_to_numpy(extra)
        for axis, keep in ((-3, carried.get(HEADS)), (-2, carried.get(ROWS))):
            if keep is not None and array.ndim >= -axis and array.shape[axis] == keep.size:
                array = np.compress(keep, array, axis)
        narrowed[name] = array
    return narrowed


def _with_heads(
    op: Op, query: Slim, key: Slim, value: Slim
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Key and value as the query heads that are left can use them.

    Keras shares a key head between as many query heads each. Where the numbers have become
    unequal, or the attention is written out, key heads are copied.
    """
    places = (np.cumsum(key.carries(HEADS)) - 1)[_owners(op)[query.carries(HEADS)]]
    heads, groups = len(places), int(key.carries(HEADS).sum())
    shares = np.array_equal(places, np.arange(heads) // max(1, heads // groups))
    # TensorFlow shares heads only where there are several.
    shares = shares and (groups > 1 or key.source.shape[HEADS] == 1)
    if heads == groups or (shares and is_stock(query.tensor, value.tensor)):
        return key.tensor, value.tensor
    indices = places.astype("int32")
    return keras.ops.take(key.tensor, indices, HEADS), keras.ops.take(value.tensor, indices, HEADS)


def _scale(op: Op, query: Slim) -> Any:
    """The scale of the original width; None lets Keras take that of the width left."""
    scale, width = op.kwargs.get("scale"), query.source.shape[WIDTH]
    if scale is not None or width is None or query.tensor.shape[WIDTH] == width:
        return scale
    return default_scale(width)


def attend(
    query: keras.KerasTensor,
    key: keras.KerasTensor,
    value: keras.KerasTensor,
    *,
    scale: Any,
    bias: Any = None,
    mask: Any = None,
    is_causal: bool = False,
    flash_attention: bool | None = None,
) -> keras.KerasTensor:
    """Calls `keras.ops.dot_product_attention`, or writes it out where the value's width differs.

    Written out, query, key and value must have the same heads.

    Keras takes the output to have the query's shape, so it would pass a wrong width on, also when
    the saved model is read again.
    """
    if is_stock(query, value):
        return keras.ops.dot_product_attention(
            query,
            key,
            value,
            bias=bias,
            mask=mask,
            scale=scale,
            is_causal=is_causal,
            flash_attention=flash_attention,
        )
    scale = default_scale(key.shape[-1]) if scale is None else scale
    dtype = keras.backend.result_type(query.dtype, key.dtype, value.dtype)
    query, key, value = (_cast(x, dtype) for x in (query, key, value))
    scores = keras.ops.einsum("btnh,bsnh->bnts", query, key)
    scores = _cast(scores, keras.backend.result_type(dtype, "float32"))
    scores = keras.ops.multiply(scores, _rounded(scale))
    if bias is not None:
        scores = keras.ops.add(scores, _cast(bias, scores.dtype))
    for condition in (mask, _causal_mask(scores) if is_causal else None):
        if condition is not None:
            low = -0.7 * float(np.finfo(np.float32).max)
            scores = keras.ops.where(_cast(condition, "bool"), scores, low)
    weights = _cast(keras.ops.softmax(scores, axis=-1), dtype)
    return keras.ops.einsum("bnts,bsnh->btnh", weights, value)


def is_stock(query: keras.KerasTensor, value: keras.KerasTensor) -> bool:
    """Tells whether Keras knows the shape of its own operation's output."""
    return query.shape[-1] == value.shape[-1]


def default_scale(width: int) -> float:
    """Returns what Keras scales by where it is not told, rounded as Keras rounds it."""
    return float(np.float32(1) / np.sqrt(np.float32(width)))


def _cast(x: Any, dtype: str) -> Any:
    if isinstance(x, np.ndarray):
        return x.astype(dtype)
    return x if x.dtype == dtype else keras.ops.cast(x, dtype)


def _rounded(scale: Any) -> float:
    """TensorFlow rounds a Python number to float32, also where it computes in float64."""
    scale = float(scale)
    return float(np.float32(scale)) if keras.backend.backend() == "tensorflow" else scale


def _causal_mask(scores: keras.KerasTensor) -> keras.KerasTensor:
    """Lets each row see the columns up to its own; for lengths that may be unknown."""
    ones = keras.ops.ones_like(scores[:1, :1], dtype="int32")
    rows, columns = keras.ops.cumsum(ones, axis=2), keras.ops.cumsum(ones, axis=3)
    return keras.ops.greater_equal(rows, columns)
