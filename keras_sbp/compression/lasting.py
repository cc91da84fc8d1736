"""What is 0 in training too, whatever the weights become; and what depends on what, then.

`prune` asks what a network computes with the weights that it has. Training changes them: a kernel
whose numbers happen to be 0 gets others, and a constant in a bias moves. So both analyses are run
on weights drawn at random, and a unit is 0 for good if it is 0 with all of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_sbp import _keras
from keras_sbp.handlers.gate import GateThatNarrows
from keras_sbp.layers import SBPLayer
from keras_sbp.program import Analysis, Op, Program, Tensor
from keras_sbp.program.analysis import backward, find_handlers, forward
from keras_sbp.program.handler import OPAQUE, LayerHandler, find_handler
from keras_sbp.program.registry import stock_class
from keras_sbp.program.units import Known, Needs, constants, tidy

_NARROWED = GateThatNarrows()
# They add to a 0 in training, or put another number in its place.
_NOT_ZERO_IN_TRAINING = (keras.layers.GaussianNoise, keras.layers.AlphaDropout)
# Of each number alone: a part of a weight is to the others as if it were not there.
_BY_NUMBER = (
    *(keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2),
    keras.constraints.NonNeg,
)
_SIGNS = (1.0, -1.0, None)  # of the weights that are drawn; None draws them too


def analyse_for_training(program: Program, *, norms_are_clipped: bool) -> Analysis:
    """Returns an analysis from which a network can be rebuilt that trains as the program's does.

    The weights of the program's layers are drawn anew.

    Args:
        program: of a model whose weights nobody needs.
        norms_are_clipped: whether the optimizer looks at the norms of whole gradients.
    """

    # What stands before a gate without any unit is cut off from the outputs, and so from the model.
    whole_branches_stay = bool(seen_by_training(program, norms_are_clipped=norms_are_clipped))

    def find(op: Op) -> tuple[LayerHandler, str | None]:
        if stock_class(op.operation) is SBPLayer:
            if whole_branches_stay and not op.operation.alive.any():
                return OPAQUE, "the loss, or a norm that is clipped, may see what is before it"
            return _NARROWED, None
        handler, reason = find_handler(op)
        return handler, reason or _why_whole(op.operation, norms_are_clipped)

    handlers, opaque = find_handlers(program, find)
    known = _zeros_in_all(_known_for_many_weights(program, handlers))
    wanted: dict[Tensor, Needs] = {}
    if norms_are_clipped:  # the KL of a gate whose units nobody reads is in the norm
        wanted = {op.outputs[0]: _alive(op) for op in program.ops if _has_living_units(op)}
    needed, edges = backward(program, handlers, known, wanted)
    return Analysis(handlers, opaque, known, needed, edges)


def seen_by_training(program: Program, *, norms_are_clipped: bool) -> list[Op]:
    """Returns the calls that count in training even where no output depends on them.

    They add to the loss what their inputs move, or may do so; and where norms are clipped, the
    gradient of a gate's KL is part of them.
    """
    return [
        op
        for op in program.ops
        if _may_add_a_loss(op.operation) or (norms_are_clipped and _has_living_units(op))
    ]


def _why_whole(operation: keras.Operation, norms_are_clipped: bool) -> str | None:
    """Why a layer cannot lose units without a change to the training of others."""
    if not isinstance(operation, keras.layers.Layer):
        return None
    for layer in (operation, *_keras.sublayers(operation)):
        if _regularizes_activity(layer):
            return "its activity regularizer sees every unit"
        if isinstance(layer, _NOT_ZERO_IN_TRAINING):
            return "it makes something else of a 0 in training"
        if not _is_stock(layer) and "training" in inspect.signature(layer.call).parameters:
            return "its call() may do something else in training"
    for weight in operation.trainable_variables:
        regularizer = weight.regularizer
        for each in (regularizer, weight.constraint):
            if each is not None and type(each) not in _BY_NUMBER:
                return f"{type(each).__name__} looks at '{weight.name}' as a whole"
        if regularizer is not None and norms_are_clipped:
            return f"the optimizer clips norms, and '{weight.name}' has a regularizer"
    return None


def _regularizes_activity(layer: Any) -> bool:
    return getattr(layer, "activity_regularizer", None) is not None or isinstance(
        layer, keras.layers.ActivityRegularization
    )


def _may_add_a_loss(operation: Any) -> bool:
    """Whether a call adds to the loss, so far as can be known, but for the KL of gates."""
    if not isinstance(operation, keras.layers.Layer) or stock_class(operation) is SBPLayer:
        return False
    layers = (operation, *_keras.sublayers(operation))
    return any(_regularizes_activity(each) or not _is_stock(each) for each in layers)


def _is_stock(layer: keras.layers.Layer) -> bool:
    return type(layer).__module__.startswith("keras.")


def _has_living_units(op: Op) -> bool:
    return stock_class(op.operation) is SBPLayer and bool(op.operation.alive.any())


def _known_for_many_weights(
    program: Program, handlers: dict[Op, LayerHandler]
) -> Iterable[dict[Tensor, Known]]:
    rng = np.random.default_rng(0)
    gates = {
        id(weight)
        for op in program.ops
        if stock_class(op.operation) is SBPLayer
        for weight in op.operation.variables
    }
    for sign in _SIGNS:
        for weight in program.model.variables:
            if "float" in keras.backend.standardize_dtype(weight.dtype) and id(weight) not in gates:
                value = rng.uniform(0.5, 1.5, weight.shape)
                weight.assign(
                    value * (rng.choice([-1.0, 1.0], weight.shape) if sign is None else sign)
                )
        with np.errstate(all="ignore"):
            yield forward(program, handlers)


def _zeros_in_all(many: Iterable[dict[Tensor, Known]]) -> dict[Tensor, Known]:
    first, *others = many
    zeros = {}
    for tensor, known in first.items():
        in_all = {axis: constant == 0 for axis, constant in known.items()}
        for each in others:
            for axis in in_all:
                in_all[axis] &= constants(each[tensor], axis, tensor.size(axis)) == 0
        zeros[tensor] = tidy({axis: np.where(zero, 0.0, np.nan) for axis, zero in in_all.items()})
    return zeros


def _alive(op: Op) -> Needs:
    axis = op.operation.axis
    return {} if axis is None else {axis % op.outputs[0].rank: op.operation.alive}
