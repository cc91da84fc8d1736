"""From a gated network to a smaller one that computes the same function."""

from __future__ import annotations

from typing import Any

import keras

from keras_sbp._arguments import check_count
from keras_sbp.comparing.full_precision import full_precision
from keras_sbp.evidence.moments import checked_data
from keras_sbp.evidence.network import ProgramNetwork
from keras_sbp.insertion.gated_copy import gated_copy
from keras_sbp.insertion.gates import with_decisions
from keras_sbp.insertion.insert import marked
from keras_sbp.layers import find_gates
from keras_sbp.program import Analysis, Program, Scale, analyse, trace
from keras_sbp.program.constants import constant_tensors, fold_constants
from keras_sbp.program.handler import kind
from keras_sbp.program.rebuild import rebuild
from keras_sbp.pruning.decide import decide, warn_of_hidden_gates
from keras_sbp.pruning.report import PruneReport
from keras_sbp.pruning.summary import summarise
from keras_sbp.pruning.verify import examples_of
from keras_sbp.pruning.verify import verify as compare
from keras_sbp.rules import OwnRules, Rule


@full_precision()
def prune(
    model: keras.Model,
    rule: Rule | None = None,
    *,
    verify: Any = True,
    strict: bool = False,
    inputs: Any = None,
    round_to: int = 1,
    reweight: Any = None,
) -> tuple[keras.Model, PruneReport]:
    """Removes what the gates do not keep and returns a smaller model with the same function.

    The gates disappear: their means go into the weights around them. Units that become
    constant go into biases, units that nobody needs go, and so do branches without any unit
    left. Layers that the package does not know stay whole, with a reason in the report. The
    small model has stock Keras layers only and is not compiled; the given model is not changed.

    Reference:
        Neklyudov et al. (2017), Structured Bayesian Pruning via Log-Normal Multiplicative
        Noise, section 3.3 (https://arxiv.org/abs/1705.07283): units below the signal-to-noise
        threshold are removed.

    Args:
        model: a built model, usually with `SBPLayer`s. Nested models, layers made of layers,
            and models with a `call` of their own are unfolded into one functional model.
        rule: decides for all gates. `None` leaves it to each gate's own rule. Rules that need no
            posteriors work on a model without gates, too: its units are those that `insert_sbp`
            would gate.
        verify: compares both models on inputs that are drawn so that the model runs on them,
            and raises where they differ by more than rounding explains: 1e-5 of the largest
            output in float32 (1e-4 above 100 layers, 1e-9 in float64, 2e-2 in float16, 0.15 in
            bfloat16). Instead of True, a batch of examples to compare on: inputs as the model
            is called with, `(x, y)`, a `tf.data.Dataset`, a `keras.utils.PyDataset` or a
            generator; at most 32 of them are used. False compares nothing.
        strict: raises where a layer had to stay opaque, instead of naming it in the report.
        inputs: only for a model with its own `call`: a structure of `keras.Input`s or arrays
            that it is to be called with. `None` takes the shapes that it was built with.
        round_to: rounds the number of units that each gate keeps up to a multiple of this, as
            far as there are units; the most important of the dropped ones come back.
        reweight: a few hundred examples, in any of the forms that `verify` takes; labels are not
            used. Dense layers and convolutions behind the gates then get new weights, which bring
            what they compute as close as least squares can to what they computed before. So the
            function changes, and verification compares with the model that has these weights.

    Returns:
        `(small, report)`: a `keras.Model` with the inputs and outputs of `model`, and a
        `PruneReport`.

    Raises:
        TypeError: `model` is not a Keras model, or its own `call` cannot be read as a graph.
        ValueError: `model` is not built; `round_to` is not a positive integer; the examples to
            verify on do not fit the model; a posterior holds NaN or infinity; an output would
            not depend on the input any more; a layer that must be copied cannot be; with
            `strict=True`, a layer is opaque.
        RuntimeError: verification failed, or the model runs on no input that was tried.

    Example:

    >>> import keras, keras_sbp
    >>> model = keras.Sequential([
    ...     keras.Input((8,)),
    ...     keras.layers.Dense(4, activation="relu"),
    ...     keras_sbp.SBPLayer(),
    ...     keras.layers.Dense(1),
    ... ])
    >>> model.layers[1].set_posterior([0.0, 0.0, -5.0, 0.0], [-3.0, -3.0, 3.0, -3.0])
    >>> small, report = keras_sbp.prune(model)
    >>> small.layers[1].units
    3
    """
    round_to = check_count("prune", "round_to", round_to, such_as=8)
    rule = OwnRules() if rule is None else rule
    program = trace(model, inputs)
    examples = rule.reweighting_data
    if reweight is not None:
        examples = checked_data(program, reweight, "reweight")
    given = None if isinstance(verify, bool) else examples_of(program, verify)
    program = _with_gates(program, rule, to_be_written=examples is not None)
    network = ProgramNetwork(program, loss=getattr(model, "loss", None), round_to=round_to)
    decisions = decide(network, rule)
    if examples is not None:
        for variable, value in network.reweighted(decisions.keep, examples):
            variable.assign(value)
    decided = with_decisions(program, decisions.keep)
    analysis = analyse(decided)
    if strict:
        _refuse_opaque(model, analysis)
    _refuse_constant_outputs(decided, analysis)
    folded, analysis = fold_constants(decided, analysis)
    rebuilt = rebuild(folded, analysis)
    verified = None if verify is False else compare(program, decisions.keep, rebuilt.model, given)
    return rebuilt.model, summarise(folded, analysis, rebuilt, decisions, verified)


def _with_gates(program: Program, rule: Rule, *, to_be_written: bool) -> Program:
    """The program, with marks where gates would stand if it has none and the rule needs none.

    Where new weights are to be written, it is that of a copy of the model.
    """
    if to_be_written:
        program = trace(gated_copy(program, {}))
    if rule.works_without_gates and not find_gates(program.model):
        program = marked(program)
    warn_of_hidden_gates(program)
    return program


def _refuse_opaque(model: keras.Model, analysis: Analysis) -> None:
    if not analysis.opaque:
        return
    lines = [f"  '{op.name}' ({kind(op)}): {why}" for op, why in analysis.opaque.items()]
    raise ValueError(
        f"Model '{model.name}' has {len(lines)} opaque calls, whose neighbours must be kept "
        "whole:\n" + "\n".join(lines) + "\nExpected none with strict=True. Register handlers for "
        "these layers (keras_sbp.register_handler), or pass strict=False."
    )


def _refuse_constant_outputs(program: Program, analysis: Analysis) -> None:
    constant = constant_tensors(program, analysis)
    outputs = keras.tree.flatten(program.output_structure)
    for x, tensor in zip(outputs, program.outputs, strict=True):
        if tensor not in constant:
            continue
        empty = [
            f"'{op.name}'"
            for op in program.ops
            if isinstance(op.operation, Scale) and not op.operation.factor.any()
        ]
        cause = (
            f"Gates that keep no unit: {', '.join(empty)}. The KL was too strong: lower "
            "kl_weight, use KLWarmup, train longer on more data, or lower the rule's threshold."
            if empty
            else "No gate is empty: look for weights that are all zero."
        )
        raise ValueError(
            f"Output '{x.name}' of model '{program.model.name}' would not depend on the input any "
            f"more, so there is nothing left to prune to. Expected at least one unit to stay on "
            f"every path. {cause}"
        )
