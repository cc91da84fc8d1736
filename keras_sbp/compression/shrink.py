"""A gated network without its frozen units, in the middle of its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_sbp._optimizers import (
    decays,
    inner_optimizers,
    leave_out_of_weight_decay,
    scalars,
    slots,
)
from keras_sbp.comparing.full_precision import full_precision
from keras_sbp.compression.lasting import analyse_for_training, seen_by_training
from keras_sbp.compression.settings import compile_like
from keras_sbp.compression.slices import Slice, slices_of
from keras_sbp.compression.student import student_of
from keras_sbp.insertion.gated_copy import copy_network
from keras_sbp.layers import SBPLayer, find_gates
from keras_sbp.program import Op, Program, trace
from keras_sbp.program.rebuild import Rebuilt, rebuild
from keras_sbp.pruning.verify import verify
from keras_sbp.telling import warn

# They move every number by its own gradient and its own past.
_BY_NUMBER = tuple(
    getattr(keras.optimizers, name)
    for name in (
        *("SGD", "RMSprop", "Adagrad", "Adadelta", "Adam", "AdamW", "Adamax", "Nadam", "Ftrl"),
        *("Lion", "LossScaleOptimizer"),
    )
)


@full_precision()
def shrink(model: keras.Model) -> keras.Model:
    """Removes the frozen units of a gated model in training, so that it trains faster.

    What `SBPLayer.freeze()`, `SNRMonitor(prune_every=n)` or `GradualPruning` have frozen goes
    physically; the gates stay, for what stays. A compiled model is compiled again, and what its
    optimizer has got to goes along: slots, moving averages and accumulated gradients, cut like the
    weights that they belong to; counters of steps, schedules and the scale of the loss. So
    training goes on as it would have: but for the noise, which is drawn for fewer units, and for
    rounding, the next steps are the same.

    A unit goes where it is 0 whatever training makes of the weights. One whose 0 becomes a
    trained constant (before the `beta` of a BatchNormalization, say) stays until `prune`, and so
    do units next to layers that are opaque, or whose regularizer or constraint looks at weights
    as a whole. A warning names them. What regularizers add to the loss of what went is no longer
    in the loss that is logged.

    The given model is not changed.

    Args:
        model: A built model with gates. Units that a rule would drop, and that nobody has frozen,
            stay.

    Returns:
        A functional model, or one of the model's class where that trains in its own way. Compiled
        if the model is; its metrics begin anew.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If it has no gates, is not built, is of a class that cannot train other
            layers, or is compiled with an optimizer that looks at weights as a whole, such as
            LAMB; if the loss, or a norm that is clipped, depends on what would be cut off.
        RuntimeError: If the smaller model is not the same function.

    Example:

    >>> import keras, keras_sbp
    >>> model = keras.Sequential([
    ...     keras.Input((8,)),
    ...     keras.layers.Dense(4, activation="relu"),
    ...     keras_sbp.SBPLayer(num_samples=100),
    ...     keras.layers.Dense(1),
    ... ])
    >>> model.compile("adam", "mse")
    >>> model.layers[1].freeze([True, True, False, True])
    >>> small = keras_sbp.shrink(model)
    >>> small.layers[1].units, small.layers[2].units
    (3, 3)
    """
    program = trace(model)
    gates = find_gates(model)
    if not gates:
        raise ValueError(
            f"shrink removes what the gates of a model have frozen. Expected a model with "
            f"SBPLayers. Received: '{model.name}', which has none. Insert them with "
            "keras_sbp.insert_sbp, or make a plain network small with keras_sbp.prune."
        )
    for gate in gates:
        gate.check_posterior()
    optimizers = _optimizers(model)
    clipped = any(each.clipnorm or each.global_clipnorm for each in optimizers)
    if clipped:
        _refuse_half_an_update(optimizers)
    # Numbers are written into this one, to see what depends on what, and where they come to.
    copy = copy_network(program)
    values = copy.model.get_weights()
    copied = trace(copy.model)
    analysis = analyse_for_training(copied, norms_are_clipped=clipped)
    copy.model.set_weights(values)
    layers = {id(op.operation): op.operation for op in copied.ops if _has_weights(op.operation)}
    small, slices = slices_of(layers.values(), lambda: rebuild(copied, analysis))
    _refuse_dead_ends(seen_by_training(copied, norms_are_clipped=clipped), small)
    verify(program, {gate: gate.keep() for gate in gates}, small.model)
    _warn_of_frozen(gates, small, copy, analysis.opaque)
    result = student_of(small.model, model, None)
    if optimizers:
        compile_like(result, model)
        _carry_over(model, result, _sources(program, copy, slices))
    return result


def _optimizers(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """The optimizer of a compiled model, and the one inside.

    Raises:
        ValueError: If one of them does not treat every number alone.
    """
    if not model.compiled or model.optimizer is None:
        return []
    optimizers = inner_optimizers(model.optimizer)
    for each in optimizers:
        own = not type(each).__module__.startswith("keras.")
        if own or not isinstance(each, _BY_NUMBER):
            known = ", ".join(cls.__name__ for cls in _BY_NUMBER)
            raise ValueError(
                f"shrink cuts the state of the optimizer like the weights, which is exact where "
                f"every number is treated alone. Expected one of {known}. Received: "
                f"{type(each).__name__}. Compile the model with one of these."
            )
    return optimizers


def _refuse_half_an_update(optimizers: list[keras.optimizers.Optimizer]) -> None:
    for each in optimizers:
        waiting = slots(each).get("_accumulated_gradients", {}) if each.built else {}
        if any(keras.ops.convert_to_numpy(slot.value).any() for slot in waiting.values()):
            raise ValueError(
                f"shrink was called between the {each.gradient_accumulation_steps} steps over "
                f"which {type(each).__name__} accumulates gradients, and it will clip the norm of "
                "what units that go have left there, too. Expected no gradients that wait. "
                "Call shrink after a number of steps that gradient_accumulation_steps divides."
            )


def _refuse_dead_ends(seen: list[Op], small: Rebuilt) -> None:
    kept = {id(each) for each in small.model.operations}
    lost = [op.name for op in seen if id(small.layers.get(id(op.operation))) not in kept]
    if lost:
        raise ValueError(
            f"shrink would cut off '{lost[0]}', on which no output depends any more, but the loss "
            "or a norm that the optimizer clips does. Expected frozen units that leave a way from "
            "there to an output. prune() can take them out."
        )


def _has_weights(operation: Any) -> bool:
    return isinstance(operation, keras.layers.Layer) and bool(operation.variables)


def _sources(
    program: Program, copy: Rebuilt, slices: Mapping[int, Slice]
) -> dict[int, tuple[keras.Variable, Slice]]:
    """By the id of each new weight, the weight of the user's model that it is a part of."""
    originals = {}
    for op in program.ops:
        if _has_weights(op.operation):
            twins = copy.layers[id(op.operation)].variables
            for weight, twin in zip(op.operation.variables, twins, strict=True):
                originals[id(twin)] = weight
    return {key: (originals[id(each.source)], each) for key, each in slices.items()}


def _carry_over(
    old: keras.Model, new: keras.Model, sources: Mapping[int, tuple[keras.Variable, Slice]]
) -> None:
    """Gives the optimizer of the new model what that of the old one has got to."""
    pairs = [(weight, *sources[id(weight)]) for weight in new.trainable_variables]
    spared = [weight for weight, source, _ in pairs if not decays(old.optimizer, source)]
    leave_out_of_weight_decay(new.optimizer, spared)
    if not old.optimizer.built:
        return
    new.optimizer.build(new.trainable_variables)
    for before, after in zip(
        inner_optimizers(old.optimizer), inner_optimizers(new.optimizer), strict=True
    ):
        taken, given = slots(before), slots(after)
        for name, of_source in taken.items():
            for weight, source, part in pairs:
                value = keras.ops.convert_to_numpy(of_source[id(source)].value)
                given[name][id(weight)].assign(part.of(value))
        for theirs, ours in zip(scalars(before), scalars(after), strict=True):
            # Through NumPy: under JAX both would hold one buffer, which the next step gives away.
            ours.assign(keras.ops.convert_to_numpy(theirs.value))


def _warn_of_frozen(
    gates: list[SBPLayer], small: Rebuilt, copy: Rebuilt, opaque: Mapping[Any, str]
) -> None:
    stay = []
    for gate in gates:
        new = small.layers.get(id(copy.layers[id(gate)]))
        frozen = 0 if new is None else int(np.count_nonzero(~new.alive))
        if frozen:
            stay.append(f"{frozen} of {gate.units} of '{gate.name}'")
    if stay:
        reasons = [f"'{op.name}' stays whole, as {why}" for op, why in opaque.items()]
        reasons += [
            "where training makes another constant of the 0, this must be computed",
            "a layer whose bias trains keeps one input",
        ]
        warn(f"Frozen units stay until prune(): {', '.join(stay)}. {'; '.join(reasons)}.")
