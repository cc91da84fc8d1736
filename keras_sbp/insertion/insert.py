"""From a network to the same network with gates."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_sbp.comparing.full_precision import full_precision
from keras_sbp.insertion.costs import weights_by_macs
from keras_sbp.insertion.gated_copy import gated_copy, with_gates
from keras_sbp.insertion.gates_report import GatesReport, existing_gates, remember, report_on
from keras_sbp.insertion.layer_names import Chosen, chosen_layers
from keras_sbp.insertion.place_branches import place_branch_gates
from keras_sbp.insertion.place_units import Wishes, place_unit_gates
from keras_sbp.insertion.plan import Placement, Plan, Refusal
from keras_sbp.layers import SBPLayer
from keras_sbp.program import Op, Program, Scale, trace
from keras_sbp.program.facts import unit_axes
from keras_sbp.program.removal import Trials
from keras_sbp.telling import write

CHOICES = {
    "placement": ("activation", "layer"),
    "gate": ("units", "branch"),
    "attention": ("heads", "heads+width", None),
    "verbose": ("auto", 0, 1, 2),
}


@full_precision()
def insert_sbp(
    model: keras.Model,
    *,
    placement: str = "activation",
    num_samples: float | None = None,
    layers: str | keras.layers.Layer | Iterable[str | keras.layers.Layer] | None = None,
    exclude: str | keras.layers.Layer | Iterable[str | keras.layers.Layer] = (),
    tie_residual: bool = False,
    kl_weight: float | str = 1.0,
    gate: str = "units",
    attention: str | None = "heads",
    inputs: Any = None,
    verbose: int | str = "auto",
    **gate_options: Any,
) -> keras.Model:
    """Returns the same network with gates in it, ready to be trained and pruned.

    Units that can only stay or go together get one gate: a convolution's filters with the
    depthwise convolution behind it, say. The gate stands behind the last unit-wise op
    (normalisation, activation) of the layer that makes the units, and before the value
    branches or is mixed with others, so that a removed unit is 0 for all that read it. No gate
    is put where a removed unit could not go: on the model's outputs, on what is coupled to its
    inputs, next to opaque layers, and, unless `tie_residual=True`, on residual streams.

    The given model is not changed. The new one is functional and flat, and not compiled. It
    has copies of all layers, under their names, with their weights, trainable flags and dtype
    policies, and with the state of their random generators. Shared layers stay shared. Gates
    that the model has already stay, and their units get no second one.

    At insertion the new model is the old one with each gated tensor multiplied by E₀, the
    mean of a new gate: 0.9946, or 1 − E₀ = 0.0054. Nothing else changes. A chain of d gates
    through layers f with f(s·x) = s·f(x) multiplies its output by E₀ᵈ, which is at least
    1 − 0.0054·d. For any other network, the difference is at most 1 − E₀ times the largest
    slope of the output as a function of one common factor between E₀ and 1 at all gates.
    `log_sigma_initializer=-10` makes 1 − E₀ as small as 3.6e-5.

    Reference:
        Neklyudov et al. (2017), Structured Bayesian Pruning via Log-Normal Multiplicative
        Noise (https://arxiv.org/abs/1705.07283).

    Args:
        model: a built model. Nested models, layers made of layers, and models with a `call` of
            their own are unfolded.
        placement: `"activation"` puts gates behind the last unit-wise op; `"layer"` right
            behind the layer that makes the units.
        num_samples: number of training examples, for all gates; `None` leaves it to
            `SNRMonitor`.
        layers: names, or layers, whose units get gates; `None` means all. The name of a nested
            model or a composite layer stands for everything in it.
        exclude: names, or layers, whose units get none.
        tie_residual: whether to gate the units of residual streams too, each stream by one
            gate that is called wherever the stream is written.
        kl_weight: factor on the KL of all gates; or `"macs"` for factors in proportion to the
            multiply-accumulates that one unit costs, with mean 1 over all units.
        gate: `"units"`, or `"branch"` for one gate on each residual branch as a whole; `placement`,
            `attention` and `tie_residual` are for units only.
        attention: `"heads"` gates the heads of attention layers, `"heads+width"` the width of
            queries and keys as well, `None` neither.
        inputs: only for a model with its own `call`: a structure of `keras.Input`s or arrays
            that it is to be called with. `None` takes the shapes that it was built with.
        verbose: 0 writes nothing, 2 or `"auto"` a line that counts, 1 a table of all layers
            with weights: the gate of each, or why it has none. `keras_sbp.gates_report` returns
            the same for the new model.
        **gate_options: further arguments of `SBPLayer`: `rule`, `learning_rate_multiplier`,
            `log_sigma_initializer` and so on.

    Returns:
        A `keras.Model` with `SBPLayer`s named after the layers that they gate.

    Raises:
        TypeError: `model` is not a Keras model, or its own `call` cannot be read as a graph.
        ValueError: `model` is not built; an argument has no such choice; a name is unknown, or
            names nothing that can be gated; there is nothing to gate.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(16, 3, padding="same", name="conv"),
    ...     keras.layers.BatchNormalization(),
    ...     keras.layers.ReLU(),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(10),
    ... ])
    >>> gated = keras_sbp.insert_sbp(model)
    >>> [layer.name for layer in gated.layers if isinstance(layer, keras_sbp.SBPLayer)]
    ['conv_gate']
    """
    _check_choices(placement=placement, gate=gate, attention=attention, verbose=verbose)
    if gate == "branch":
        _check_ignored(placement=placement, attention=attention, tie_residual=tie_residual)
    _check_kl_weight(kl_weight)
    _check_gate_options(gate_options)
    program = trace(model, inputs)
    wanted = None if layers is None else chosen_layers(program, layers, "layers")
    unwanted = chosen_layers(program, exclude, "exclude")
    trials = Trials(program)
    if gate == "branch":
        plan = place_branch_gates(trials)
    else:
        plan = place_unit_gates(trials, Wishes(placement, attention, tie_residual))
    placements = _selected(plan, wanted, unwanted)
    if not placements:
        _refuse_empty(program, plan, gate)
    if isinstance(kl_weight, str):
        weights = weights_by_macs(placements, trials)
    else:
        weights = [kl_weight] * len(placements)
    gates = _make_gates(program, placements, weights, {"num_samples": num_samples} | gate_options)
    placed = dict(zip(gates, placements, strict=True))
    gated = gated_copy(program, {gate: each.sites for gate, each in placed.items()})
    plan.refusals += _not_asked_for(program, gate, attention)
    report = report_on(trials, existing_gates(trials) | placed, plan)
    remember(gated, report)
    _tell(report, verbose)
    return gated


def marked(program: Program) -> Program:
    """Returns a program with a mark, which changes nothing, wherever `insert_sbp` puts a gate.

    Raises:
        ValueError: there is nothing to gate.
    """
    plan = place_unit_gates(Trials(program), Wishes())
    if not plan.placements:
        _refuse_empty(program, plan, "units")
    marks = {
        Scale(placement.axis, np.ones(placement.units), name): placement.sites
        for placement, name in zip(plan.placements, _names(program, plan.placements), strict=True)
    }
    return with_gates(program, marks)


def _check_choices(**choices: Any) -> None:
    for argument, value in choices.items():
        if value not in CHOICES[argument]:
            expected = ", ".join(repr(each) for each in CHOICES[argument])
            raise ValueError(
                f"insert_sbp expected `{argument}` to be one of {expected}. "
                f"Received: {argument}={value!r}."
            )


def _check_ignored(**options: Any) -> None:
    """Refuses what says where gates for units go, if there are to be none."""
    defaults = inspect.signature(insert_sbp).parameters
    for option, value in options.items():
        if value != defaults[option].default:
            raise ValueError(
                f"insert_sbp puts one gate on each residual branch, so that `{option}` has no "
                f"meaning. Expected it to be left out with gate='branch'. Received: "
                f"{option}={value!r}. Remove the option, or pass gate='units'."
            )


def _check_kl_weight(kl_weight: Any) -> None:
    if isinstance(kl_weight, str) and kl_weight != "macs":
        raise ValueError(
            "insert_sbp expected `kl_weight` to be a number of 0 or greater, or 'macs'. "
            f"Received: kl_weight={kl_weight!r}."
        )


def _check_gate_options(gate_options: dict[str, Any]) -> None:
    for option in ("axis", "name"):
        if option in gate_options:
            raise ValueError(
                f"insert_sbp chooses `{option}` for each gate itself. Expected other arguments of "
                f"SBPLayer. Received: {option}={gate_options[option]!r}. To place a gate by hand, "
                "call an SBPLayer when building the model."
            )


def _selected(plan: Plan, wanted: Chosen | None, unwanted: Chosen) -> list[Placement]:
    """The gates that were asked for; why the others were not is written into the plan."""
    excluded = set().union(*unwanted.values())
    placements = [each for each in plan.placements if excluded.isdisjoint(each.producers)]
    if wanted is not None:
        included = _included(plan, wanted)
        placements = [each for each in placements if not included.isdisjoint(each.producers)]
    left_out = [
        Refusal(
            each.producers,
            "not among `layers`" if excluded.isdisjoint(each.producers) else "excluded",
        )
        for each in plan.placements
        if each not in placements
    ]
    plan.refusals = [*left_out, *plan.refusals]
    return placements


def _included(plan: Plan, wanted: Chosen) -> set[Op]:
    for name, ops in wanted.items():
        if all(ops.isdisjoint(each.producers) for each in plan.placements):
            reasons = [each.reason for each in plan.refusals if not ops.isdisjoint(each.producers)]
            raise ValueError(
                f"insert_sbp was asked to gate '{name}', but cannot: "
                f"{reasons[0] if reasons else 'it makes no units that could be removed'}. "
                "Expected the names of layers whose units can go. Remove it from `layers`."
            )
    return set().union(*wanted.values())


def _not_asked_for(program: Program, gate: str, attention: str | None) -> list[Refusal]:
    """Why layers were not considered at all."""
    if gate == "branch":
        return [Refusal(program.ops, "it is on no residual branch")]
    if attention is None:
        layers_of_attention = [op for op in program.ops if len(unit_axes(op)) > 1]
        return [Refusal(layers_of_attention, "not asked for: attention=None")]
    return []


def _tell(report: GatesReport, verbose: int | str) -> None:
    if verbose == 1:
        report.summary()
    elif verbose:
        write(f"insert_sbp: {report} (keras_sbp.gates_report(model).print() says why)")


def _refuse_empty(program: Program, plan: Plan, gate: str) -> None:
    lines = [f"  '{each.producers[0].name}': {each.reason}" for each in plan.refusals]
    if plan.placements:
        lines = ["  everything that could be gated is excluded"]
    elif not lines:
        what = "adds a branch to a shortcut" if gate == "branch" else "makes units with weights"
        lines = [f"  no layer {what}"]
    raise ValueError(
        f"Model '{program.model.name}' has nothing to gate:\n" + "\n".join(lines) + "\n"
        "Expected at least one layer whose units can go. Change the arguments, or put SBPLayers "
        "into the model by hand."
    )


def _make_gates(
    program: Program, placements: list[Placement], weights: list[float], options: dict[str, Any]
) -> list[SBPLayer]:
    names = _names(program, placements)
    gates = []
    for placement, weight, name in zip(placements, weights, names, strict=True):
        dtype = _policy(placement.sites[0].tensor.dtype)
        gates.append(
            SBPLayer(
                **({"dtype": dtype} | options), axis=placement.axis, kl_weight=weight, name=name
            )
        )
    return gates


def _names(program: Program, placements: list[Placement]) -> list[str]:
    """A name for each gate that nothing in the program has."""
    taken = {op.name.replace("/", "_") for op in program.ops}
    names = []
    for placement in placements:
        name = wanted = placement.name.replace("/", "_")
        number = 0
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        taken.add(name)
        names.append(name)
    return names


def _policy(dtype: str) -> str:
    """The dtype policy under which a gate returns tensors of this dtype."""
    return f"mixed_{dtype}" if dtype in ("float16", "bfloat16") else dtype
