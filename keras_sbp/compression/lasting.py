"""What is 0 in training too, whatever the weights become; and what depends on what, then.

`prune` asks what a network computes with the weights that it has. Training changes them: a kernel
whose numbers happen to be 0 gets others, and a constant in a bias moves. So both analyses are run
on weights drawn at random, and a unit is 0 for good if it is 0 with all of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable

import keras
import numpy as np

from keras_sbp import _keras
from keras_sbp.handlers.gate import GateThatNarrows
from keras_sbp.layers import SBPLayer
from keras_sbp.layers._posterior_weights import Between
from keras_sbp.program import Analysis, Op, Program, Tensor
from keras_sbp.program.analysis import backward, find_handlers, forward
from keras_sbp.program.handler import OPAQUE, LayerHandler, find_handler
from keras_sbp.program.registry import stock_class
from keras_sbp.program.units import Known, Needs, tidy

_NARROWED = GateThatNarrows()
# They add to a 0 in training, or put another number in its place.
_NOT_ZERO_IN_TRAINING = (keras.layers.GaussianNoise, keras.layers.AlphaDropout)
# Of each number alone: a part of a weight is to the others as if it were not there.
_BY_NUMBER = (
    *(keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2),
    *(keras.constraints.NonNeg, Between),
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
    whole_branches_stay = norms_are_clipped or any(_sees_units(op.operation) for op in program.ops)

    def find(op: Op) -> tuple[LayerHandler, str | None]:
        if stock_class(op.operation) is SBPLayer:
            if whole_branches_stay and not op.operation.alive.any():
                return OPAQUE, "the loss, or a norm that is clipped, sees what is before it"
            return _NARROWED, None
        handler, reason = find_handler(op)
        return handler, reason or _why_whole(op.operation, norms_are_clipped)

    handlers, opaque = find_handlers(program, find)
    known = _zeros_in_all(_known_for_many_weights(program, handlers))
    wanted: dict[Tensor, Needs] = {tensor: {} for op in opaque for tensor in op.outputs}
    if norms_are_clipped:  # the KL of a gate whose units nobody reads is in the norm
        gates = [op for op in handlers if handlers[op] is _NARROWED and op.operation.alive.any()]
        wanted |= {op.outputs[0]: _alive(op) for op in gates}
    needed, edges = backward(program, handlers, known, wanted)
    return Analysis(handlers, opaque, known, needed, edges)


def _why_whole(operation: keras.Operation, norms_are_clipped: bool) -> str | None:
    """Why a layer cannot lose units without a change to the training of others."""
    if not isinstance(operation, keras.layers.Layer):
        return None
    for layer in (operation, *_keras.sublayers(operation)):
        if _sees_units(layer):
            return "its activity regularizer sees every unit"
        if isinstance(layer, _NOT_ZERO_IN_TRAINING):
            return "it makes something else of a 0 in training"
        is_stock = type(layer).__module__.startswith("keras.")
        if not is_stock and "training" in inspect.signature(layer.call).parameters:
            return "its call() may do something else in training"
    for weight in operation.trainable_variables:
        regularizer = weight.regularizer
        for each in (regularizer, weight.constraint):
            if each is not None and type(each) not in _BY_NUMBER:
                return f"{type(each).__name__} looks at '{weight.name}' as a whole"
        if regularizer is not None and norms_are_clipped:
            return f"the optimizer clips norms, and '{weight.name}' has a regularizer"
    return None


def _sees_units(layer: keras.Operation) -> bool:
    """Whether a layer adds to the loss what its outputs are."""
    return getattr(layer, "activity_regularizer", None) is not None or isinstance(
        layer, keras.layers.ActivityRegularization
    )


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
    return {
        tensor: tidy(
            {
                axis: np.where(
                    [c == 0]
                    + [each[tensor].get(axis, np.full(c.size, np.nan)) == 0 for each in others],
                    0.0,
                    np.nan,
                ).sum(0)
                for axis, c in known.items()
            }
        )
        for tensor, known in first.items()
    }


def _alive(op: Op) -> Needs:
    axis = op.operation.axis
    return {} if axis is None else {axis % op.outputs[0].rank: op.operation.alive}
