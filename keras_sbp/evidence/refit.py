"""New weights for what reads pruned units, and which units its readers can do with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from keras_sbp.evidence.linear_readers import Reader, find_readers
from keras_sbp.evidence.moments import Measured, Meter, State, Weights
from keras_sbp.insertion.gates import Gate
from keras_sbp.program import Op
from keras_sbp.program.linear_map import LinearMap
from keras_sbp.program.removal import Trials
from keras_sbp.rules.least_squares import Selection, refit, select

# How strongly new weights are drawn towards the old ones; the best on unseen examples is taken.
# With fewer examples than features, weights that are free to move fit noise.
RIDGES = (1e-8, 1e-5, 1e-3, 1e-2, 1e-1, 1.0)


def reweight(trials: Trials, decisions: Mapping[Gate, np.ndarray], data: Any) -> Weights:
    """Returns new weights for the linear layers behind the gates of a pruned network.

    Layer by layer, in the order of the program, the outputs (before the activation) that a layer
    has in the original network are fitted from what reaches it in the pruned network, whose
    layers before it have their new weights already. Layers that are used at several places, and
    those that would do worse on unseen examples, keep their weights. Nothing is written.

    Reference:
        El Halabi, Srinivas, Lacoste-Julien (2022), Data-Efficient Structured Pruning via
        Submodular Optimization, section 3 (https://arxiv.org/abs/2203.04940).

    Args:
        trials: on a traced program, with its gates.
        decisions: which units each gate keeps.
        data: inputs of the model, as for `predict()`; a few hundred examples, without labels.

    Returns:
        (variable, value) pairs, for the variables of the traced model's layers. Rows that
        belong to removed units are as they were.

    Raises:
        ValueError: the data do not fit the model, or give values that are not finite.
    """
    meter, original = Meter(trials.program, data), State.original(trials.program)
    state = State(dict(decisions))
    for reader, removed in _affected(trials, decisions):
        [measured] = meter.measure([reader], state, original)
        state = replace(
            state, weights=state.weights + new_weights(reader.linear, measured, removed)
        )
    return state.weights


def new_weights(linear: LinearMap, measured: Measured, removed: np.ndarray) -> Weights:
    """Returns new values for a layer's kernel and bias; nothing where the old ones are better.

    Args:
        linear: the layer.
        measured: its moments, with the features of the pruned network.
        removed: the kernel's rows whose weights must stay, a boolean array.
    """
    old = measured.weights
    free = np.ones(len(old), bool)
    free[: len(removed)] = ~removed
    fits = [refit(measured.fit, free, towards=old, ridge=ridge) for ridge in RIDGES]
    errors = [measured.check.error(weights) for weights in fits]
    best = int(np.argmin(errors))
    if not errors[best] < measured.check.error(old):
        return ()
    weights = refit(measured.all, free, towards=old, ridge=RIDGES[best])
    kernel = weights[: len(removed)].reshape(linear.kernel.shape)
    bias = () if linear.bias is None else ((linear.bias, weights[-1]),)
    return ((linear.kernel, kernel), *bias)


def _affected(
    trials: Trials, decisions: Mapping[Gate, np.ndarray]
) -> list[tuple[Reader, np.ndarray]]:
    """The linear readers of all gates in order, each with its rows that vanish."""
    found: dict[Op, tuple[Reader, np.ndarray]] = {}
    for gate, keep in decisions.items():
        for reader in find_readers(trials, gate).linear:
            removed = removed_rows(reader, keep)
            if reader.op in found:
                removed = removed | found[reader.op][1]
            found[reader.op] = reader, removed
    return [found[op] for op in sorted(found, key=trials.order.__getitem__)]


def removed_rows(reader: Reader, keep: np.ndarray) -> np.ndarray:
    """Returns which of a reader's features belong to removed units. Boolean, shape (F,)."""
    return (reader.unit_of >= 0) & ~keep[reader.unit_of]


def select_units(
    trials: Trials,
    gates: Sequence[Gate],
    data: Any,
    wanted: Mapping[Gate, int] | None,
    *,
    variant: str = "layer",
    reweight: bool = False,
    ridge: float = 1e-8,
) -> dict[Gate, Selection | None]:
    """Returns for each gate its units in greedy order, as `Network.input_change` says.

    Each gate costs a run of the network up to its readers on all data, or up to three where
    earlier gates have been decided.

    Args:
        trials: on a traced program, with its gates.
        gates: in the order in which they are decided.
        data: inputs of the model.
        wanted: how many units of each gate to choose; None orders all units of each, in the
            network with all units there.
        variant: where features and targets come from.
        reweight: whether layers behind decided gates have their best weights from then on.
        ridge: of the selection.
    """
    meter, original = Meter(trials.program, data), State.original(trials.program)
    pruned = original
    results: dict[Gate, Selection | None] = {}
    for gate in gates:
        readers = find_readers(trials, gate).linear
        results[gate] = None
        if not readers:
            continue
        inputs = original if variant == "layer" else pruned
        targets = pruned if variant == "sequential" else original
        moments = [each.all for each in meter.measure(readers, inputs, targets)]
        count = None if wanted is None else wanted[gate]
        result = select(moments, gate.units, count, ridge=ridge, relative=True)
        del moments
        results[gate] = result
        if count is None or variant == "layer":
            continue
        keep = np.isin(np.arange(gate.units), result.order)
        pruned = replace(pruned, decisions=pruned.decisions | {gate: keep})
        if not reweight:
            continue
        for reader in readers:
            [measured] = meter.measure([reader], pruned, targets)
            weights = new_weights(reader.linear, measured, removed_rows(reader, keep))
            pruned = replace(pruned, weights=pruned.weights + weights)
    return results
