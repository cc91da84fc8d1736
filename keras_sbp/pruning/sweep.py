"""Many rules on one model: accuracy against what remains."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from rich.progress import track

from keras_sbp.graph import trace
from keras_sbp.pruning.input_moments import checked_data
from keras_sbp.pruning.prune import prune
from keras_sbp.pruning.sweep_result import SweepResult, SweepRow
from keras_sbp.pruning.verify import examples_of
from keras_sbp.rules import Decision, Network, Rule, UnitGroup

WHOLE = "all units"


def sweep(
    model: keras.Model,
    rules: Mapping[str, Rule | Sequence[Rule]] | Sequence[Rule],
    data: Any,
    *,
    metric: str | None = None,
    batch_size: int | None = None,
    verbose: int = 1,
    **options: Any,
) -> SweepResult:
    """Prunes a model by each of several rules, and evaluates what comes out.

    Nothing is trained and the model is not changed. A rule that leaves nothing of an output, or
    whose budget cannot be met, gets a row that says so, and the sweep goes on.

    Args:
        model: a compiled model; the pruned ones are evaluated with its loss and metrics.
        rules: rules by label. A sequence under one label becomes one curve of the plot. Without
            labels, rules are labelled by what they are.
        data: what `evaluate()` takes: `(x, y)`, or a data set.
        metric: the name of the result of `evaluate()` to compare by. `None` takes the first
            metric that the model is compiled with, or the loss if there is none.
        batch_size: for `evaluate()`.
        verbose: 1 shows a progress bar, 0 does not.
        **options: of `prune`: `round_to`, `reweight`, `verify` and so on.

    Returns:
        A `SweepResult`, with one row for the network with all units, and one for each rule.

    Raises:
        ValueError: the model is not compiled; there is no rule; the metric does not exist.
        TypeError: something else than a rule is among the rules.

    Example:

    >>> l1 = [keras_sbp.L1Norm(keep) for keep in (0.25, 0.5)]
    >>> rules = {"L1": l1, "random": keras_sbp.Random()}
    >>> result = keras_sbp.sweep(model, rules, (x, y), verbose=0)
    >>> [row.label for row in result.rows]
    ['all units', 'L1', 'L1', 'random']
    """
    if not getattr(model, "compiled", False):
        raise ValueError(
            f"Model '{model.name}' is not compiled, so pruned models cannot be evaluated. Expected "
            "a loss and metrics. Call model.compile(loss=..., metrics=[...]) first."
        )
    options = _read_once(model, options)
    chosen = [(WHOLE, _Everything()), *_labelled(rules)]
    rows = []
    for label, rule in track(chosen, "pruning", disable=not verbose, transient=True):
        rows.append(_row(model, label, rule, data, metric, batch_size, options))
    return SweepResult(tuple(rows))


def _read_once(model: keras.Model, options: dict[str, Any]) -> dict[str, Any]:
    """Options whose examples can be given to `prune` again and again: a generator cannot."""
    verify, reweight = options.get("verify", True), options.get("reweight")
    if isinstance(verify, bool) and reweight is None:
        return options
    program = trace(model, options.get("inputs"))
    if not isinstance(verify, bool):
        options = options | {"verify": examples_of(program, verify).arrays}
    if reweight is not None:
        options = options | {"reweight": checked_data(program, reweight, "reweight")}
    return options


class _Everything(Rule):
    """Keeps all units."""

    def importance(self, network: Network) -> dict[UnitGroup, np.ndarray]:
        return {group: np.ones(group.units) for group in network.groups}

    def decide(self, network: Network) -> Decision:
        return Decision({group: np.ones(group.units, bool) for group in network.groups})


def _labelled(rules: Any) -> Iterator[tuple[str, Rule]]:
    pairs = rules.items() if isinstance(rules, Mapping) else [(repr(rule), rule) for rule in rules]
    if not pairs:
        raise ValueError("sweep() expected at least one rule. Received none.")
    for label, several in pairs:
        for rule in several if isinstance(several, list | tuple) else [several]:
            if not isinstance(rule, Rule):
                raise TypeError(
                    "sweep() expected rules, such as keras_sbp.L2Norm(). "
                    f"Received: {rule!r} (of type {type(rule).__name__}) as '{label}'."
                )
            yield label, rule


def _row(
    model: keras.Model,
    label: str,
    rule: Rule,
    data: Any,
    metric: str | None,
    batch_size: int | None,
    options: dict[str, Any],
) -> SweepRow:
    start = time.perf_counter()
    try:
        small, report = prune(model, rule, **options)
    except ValueError as error:
        if label == WHOLE:
            raise
        return SweepRow(label, repr(rule), error=str(error))
    seconds = time.perf_counter() - start
    name, score = _evaluate(model, small, data, metric, batch_size)
    return SweepRow(
        label,
        repr(rule),
        metric=name,
        score=score,
        macs=report.macs_after,
        params=report.params_after,
        macs_before=report.macs_before,
        params_before=report.params_before,
        seconds=seconds,
    )


def _evaluate(
    model: keras.Model, small: keras.Model, data: Any, metric: str | None, batch_size: int | None
) -> tuple[str, float]:
    small.compile_from_config(model.get_compile_config() | {"optimizer": "sgd"})
    x, y = data if isinstance(data, tuple | list) else (data, None)
    results = small.evaluate(x, y, batch_size=batch_size, verbose=0, return_dict=True)
    if metric is None:
        metric = next((name for name in results if name != "loss"), "loss")
    if metric not in results:
        raise ValueError(
            f"sweep() was asked to compare by '{metric}', which evaluate() does not return. "
            f"Expected one of: {', '.join(results)}."
        )
    return metric, float(results[metric])
