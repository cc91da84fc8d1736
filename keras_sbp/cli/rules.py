"""From options to a rule."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from keras_sbp.cli import arguments
from keras_sbp.cli.arrays import read_examples, read_inputs
from keras_sbp.cli.errors import UsageError, told_to_the_user

if TYPE_CHECKING:
    import keras

    from keras_sbp.rules import Rule

# What each rule is called in Python, and which options it takes.
_RULES = {
    "snr": ("SNRThreshold", ("threshold",)),
    "bmrs-normal": ("BMRSNormal", ("threshold",)),
    "bmrs-uniform": ("BMRSUniform", ("bits",)),
    "l1": ("L1Norm", ("keep",)),
    "l2": ("L2Norm", ("keep",)),
    "batch-norm": ("BatchNormScale", ("keep",)),
    "random": ("Random", ("keep", "seed")),
    "taylor": ("Taylor", ("keep", "data", "loss")),
    "input-change": ("LayerInputChange", ("keep", "data")),
}
_OPTIONS = ("threshold", "bits", "keep", "seed", "data", "loss")
_NEED_GATES = ("snr", "bmrs-normal", "bmrs-uniform")
_NEED_DATA = ("taylor", "input-change")
_BUDGETS = ("macs", "params", "latency")
_DESCRIPTION = """\
Without --rule, each gate decides by its own rule. snr, bmrs-normal and bmrs-uniform ask trained
gates; the others work on any model."""


def add_rule(parser: argparse.ArgumentParser) -> None:
    """Declares `--rule` and what belongs to it."""
    group = parser.add_argument_group("which units stay", _DESCRIPTION)
    group.add_argument("--rule", choices=tuple(_RULES))
    group.add_argument(
        "--threshold", type=float, metavar="T", help="of snr (default 1) and bmrs-normal (0)"
    )
    group.add_argument("--bits", type=float, metavar="B", help="of bmrs-uniform (default 8)")
    group.add_argument(
        "--keep",
        type=arguments.fraction,
        metavar="F",
        help="fraction of each layer that stays (default 0.5): l1, l2, batch-norm, random, "
        "taylor, input-change",
    )
    group.add_argument("--seed", type=int, metavar="N", help="of random (default 0)")
    group.add_argument(
        "--data",
        metavar="FILE.npz",
        help="examples for input-change (array x) and taylor (arrays x and y)",
    )
    group.add_argument(
        "--loss", metavar="NAME", help="for taylor: a Keras loss, such as categorical_crossentropy"
    )
    group.add_argument(
        "--budget",
        metavar="WHAT=F",
        help="how much may remain: macs=0.25, params=0.1 or latency=0.5; the rule then says what "
        "goes first",
    )
    group.add_argument(
        "--min-keep",
        type=arguments.positive,
        metavar="N",
        help="of --budget: units of each layer that stay in any case (default: a tenth, at least "
        "2)",
    )
    group.add_argument(
        "--round-to", type=arguments.positive, default=1, metavar="N", help="round units up to N"
    )


def check_rule(options: argparse.Namespace) -> None:
    """Refuses options that do not go together, before any file is read.

    Raises:
        UsageError: Says which.
    """
    _budget_of(options)
    takes = _RULES[options.rule][1] if options.rule else ()
    for name in _OPTIONS:
        if getattr(options, name) is not None and name not in takes:
            fitting = ", ".join(rule for rule, (_, its) in _RULES.items() if name in its)
            found = f"--rule {options.rule}" if options.rule else "none"
            raise UsageError(f"--{name} belongs to --rule {fitting}; received: {found}.")
    if options.rule in _NEED_DATA and options.data is None:
        raise UsageError(f"--rule {options.rule} needs examples: pass --data FILE.npz.")
    if options.rule == "taylor" and options.loss is None:
        raise UsageError(
            "--rule taylor needs the loss: pass --loss NAME, such as "
            "--loss sparse_categorical_crossentropy."
        )
    if options.min_keep is not None and not options.budget:
        raise UsageError("--min-keep belongs to --budget; received: none.")
    if options.budget and options.keep is not None:
        raise UsageError("--budget says how much remains, and so does --keep. Pass one of them.")


def rule_of(options: argparse.Namespace, model: keras.Model) -> Rule | None:
    """Makes the rule that was asked for.

    Args:
        options: Parsed arguments.
        model: The model, which says what examples look like.

    Returns:
        A rule, or `None` for the gates' own.

    Raises:
        UsageError: An option is out of its range, or the examples do not fit.
    """
    with told_to_the_user():
        rule = _make(options, model)
    _check_gates(options, model)
    return rule


def _make(options: argparse.Namespace, model: keras.Model) -> Rule | None:
    from keras_sbp import rules

    budget = _budget_of(options)
    if options.rule is None:
        return rules.Budget(**budget) if budget else None
    name, takes = _RULES[options.rule]
    make = getattr(rules, name)
    values = arguments.given(**{option: getattr(options, option) for option in takes})
    values |= _examples(options, model)
    if options.rule == "input-change" and budget:
        return make(**values, keep=rules.Budget(**budget))
    rule = make(**values)
    return rules.Budget(**budget, base=rule) if budget else rule


def _check_gates(options: argparse.Namespace, model: keras.Model) -> None:
    from keras_sbp.graph import find_gates

    asks_gates = options.rule in _NEED_GATES or (options.budget and options.rule is None)
    if asks_gates and not find_gates(model):
        what = f"--rule {options.rule}" if options.rule else "--budget without --rule"
        others = ", ".join(rule for rule in _RULES if rule not in _NEED_GATES)
        raise UsageError(
            f"{what} asks trained gates, and '{model.name}' has none. Expected, for a model "
            f"without gates, --rule {others}."
        )


def _examples(options: argparse.Namespace, model: keras.Model) -> dict[str, Any]:
    if options.rule == "input-change":
        return {"data": read_inputs(options.data, model, "--data")}
    if options.rule == "taylor":
        import keras

        loss = keras.losses.get(options.loss)
        return {"data": read_examples(options.data, model, "--data"), "loss": loss}
    return {}


def _budget_of(options: argparse.Namespace) -> dict[str, float]:
    text = options.budget
    if text is None:
        return {}
    what, _, value = text.partition("=")
    try:
        if what not in _BUDGETS:
            raise ValueError(what)
        return {what: arguments.fraction(value)} | arguments.given(min_keep=options.min_keep)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise UsageError(
            "--budget expected macs=F, params=F or latency=F with F above 0 and at most 1, such "
            f"as macs=0.25. Received: {text!r}."
        ) from error
