"""From options to a rule: what a rule's constructor takes, its options say."""

from __future__ import annotations

import argparse
import contextlib
import functools
import inspect
import sys
import typing
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_sbp.cli import arguments
from keras_sbp.cli.arrays import read_examples, read_inputs
from keras_sbp.cli.errors import UsageError, told_to_the_user
from keras_sbp.cli.losses import FROM_LOGITS, named_loss
from keras_sbp.cli.modules import import_modules

if TYPE_CHECKING:
    import keras

    from keras_sbp.rules import Rule

# For a help that does not wait for Keras.
OURS = (
    *("snr", "bmrs-normal", "bmrs-uniform"),
    *("l1", "l2", "batch-norm", "random", "taylor", "input-change"),
)
_BUDGETS = ("macs", "params", "latency")
_DESCRIPTION = """\
Without --rule, each gate decides by its own rule. snr, bmrs-normal and bmrs-uniform ask trained
gates; the others work on any model. --rule NAME --help lists the options of a rule, too."""
# Arguments of rules that mean the same in each, and are not written as they are.
_DATA, _LOSS = "data", "loss"


def add_rule(parser: arguments.Parser) -> None:
    """Declares `--rule` and what belongs to it."""
    group = parser.add_argument_group("which units stay", _DESCRIPTION)
    group.add_argument(
        "--rule",
        metavar="NAME",
        help=f"{', '.join(OURS)}, or a registered one of your own (see --import)",
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
    parser.set_defaults(rule_class=None, refuse_unknown=refuse_unknown)
    parser.before_parsing = functools.partial(_add_options, parser, group)


def _add_options(
    parser: arguments.Parser, group: argparse._ArgumentGroup, words: Sequence[str]
) -> None:
    """Declares the options of the rule that is named among the words."""
    first = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    first.add_argument("--rule")
    first.add_argument("--import", dest="imports", action="append", default=[])
    try:
        named, _ = first.parse_known_args(words)
    except argparse.ArgumentError:
        return  # The command's own parser says so, with its usage.
    if named.rule is None:
        return
    with contextlib.redirect_stdout(sys.stderr):
        import_modules(named.imports)
        cls = _class_of(named.rule)
    parser.set_defaults(rule_class=cls)
    for flag, settings in _options_of(cls).items():
        try:
            group.add_argument(flag, **settings)
        except argparse.ArgumentError as error:
            raise UsageError(
                f"--rule {named.rule} takes an argument that would be the option {flag}, and the "
                "command has such an option already. Rename the argument in the class "
                f"{cls.__name__}, or call keras_sbp from Python."
            ) from error


def _class_of(name: str) -> type[Rule]:
    from keras_sbp.rules import registered_rules

    known = registered_rules()
    if name not in known:
        raise UsageError(
            f"--rule {name}: there is no such rule. Expected one of {', '.join(known)}. One of "
            "your own must be registered with keras_sbp.rules.register_rule, in a module that is "
            "named with --import."
        )
    return known[name]


def _options_of(cls: type[Rule]) -> dict[str, dict[str, Any]]:
    """Returns a rule's options, and for each what `add_argument` is told."""
    found = {}
    for name, parameter in _parameters(cls).items():
        flag, kinds = f"--{name.replace('_', '-')}", _kinds(cls, name)
        settings: dict[str, Any] = {"dest": _place(name), "metavar": name.upper()}
        if name == _DATA:
            what = "inputs (array x) and labels (array y)" if _wants_labels(cls) else "array x"
            settings |= {"metavar": "FILE.npz", "help": f"examples: {what}"}
        elif name == _LOSS:
            settings["help"] = "a Keras loss, such as categorical_crossentropy"
            found[FROM_LOGITS] = {
                "dest": _place("from_logits"),
                "action": "store_true",
                "help": "the loss takes outputs without a last softmax or sigmoid",
            }
        elif bool in kinds:
            flag = f"--no-{flag[2:]}" if parameter.default is True else flag
            del settings["metavar"]
            settings |= {"action": "store_const", "const": parameter.default is not True}
        else:
            settings["type"] = next((kind for kind in (float, int) if kind in kinds), str)
            settings["help"] = f"default: {parameter.default}"
        found[flag] = settings
    return found


def _place(name: str) -> str:
    """Where the value of a rule's argument is kept, apart from the command's own."""
    return f"of_rule_{name}"


def _parameters(cls: type[Rule]) -> dict[str, inspect.Parameter]:
    fixed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = inspect.signature(cls).parameters
    return {name: each for name, each in found.items() if each.kind not in fixed}


def _kinds(cls: type[Rule], name: str) -> tuple[Any, ...]:
    """Returns the types that an argument may have; that of its default, if nothing is declared."""
    try:
        hint = typing.get_type_hints(cls.__init__).get(name)
    except NameError:  # imported for type checkers only
        hint = None
    if hint is None:
        return (type(_parameters(cls)[name].default),)
    return (*typing.get_args(hint), typing.get_origin(hint), hint)


def _wants_labels(cls: type[Rule]) -> bool:
    return tuple in _kinds(cls, _DATA)


def refuse_unknown(options: argparse.Namespace, words: Sequence[str]) -> None:
    """Refuses options that belong to another rule than the one that was named.

    Raises:
        UsageError: Says to which.
    """
    from keras_sbp.rules import registered_rules

    flag = next((word.partition("=")[0] for word in words if word.startswith("--")), None)
    owners = [name for name, cls in registered_rules().items() if flag in _options_of(cls)]
    if owners:
        found = f"--rule {options.rule}" if options.rule else "none"
        raise UsageError(f"{flag} belongs to --rule {', '.join(owners)}; received: {found}.")


def check_rule(options: argparse.Namespace) -> None:
    """Refuses options that do not go together, before any file is read.

    Raises:
        UsageError: Says which.
    """
    _budget_of(options)
    given = _given(options)
    if options.rule is not None:
        takes = _parameters(options.rule_class)
        if _DATA in takes and _DATA not in given:
            raise UsageError(f"--rule {options.rule} needs examples: pass --data FILE.npz.")
        if _LOSS in takes and _LOSS not in given:
            raise UsageError(
                f"--rule {options.rule} needs the loss: pass --loss NAME, such as "
                "--loss sparse_categorical_crossentropy."
            )
    if options.min_keep is not None and not options.budget:
        raise UsageError("--min-keep belongs to --budget; received: none.")
    if options.budget and "keep" in given:
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
    from keras_sbp.rules import Budget

    budget = _budget_of(options)
    if options.rule is None:
        return Budget(**budget) if budget else None
    cls, values = options.rule_class, _given(options)
    if _DATA in values:
        read = read_examples if _wants_labels(cls) else read_inputs
        values[_DATA] = read(values[_DATA], model, "--data")
    if _LOSS in values:
        values[_LOSS] = named_loss(values[_LOSS], getattr(options, _place("from_logits")))
    own = next((name for name in _parameters(cls) if Budget in _kinds(cls, name)), None)
    if budget and own is not None:
        return cls(**values | {own: Budget(**budget)})
    rule = cls(**values)
    return Budget(**budget, base=rule) if budget else rule


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the arguments of the rule that were given, by their names in Python."""
    if options.rule_class is None:
        return {}
    places = {name: _place(name) for name in _parameters(options.rule_class)}
    return arguments.given(**{name: getattr(options, place) for name, place in places.items()})


def _check_gates(options: argparse.Namespace, model: keras.Model) -> None:
    from keras_sbp.layers import find_gates
    from keras_sbp.rules import registered_rules

    cls = options.rule_class
    asks_gates = not cls.works_without_gates if cls else bool(options.budget)
    if asks_gates and not find_gates(model):
        what = f"--rule {options.rule}" if options.rule else "--budget without --rule"
        others = [name for name, cls in registered_rules().items() if cls.works_without_gates]
        raise UsageError(
            f"{what} asks trained gates, and '{model.name}' has none. Expected, for a model "
            f"without gates, --rule {', '.join(others)}."
        )


def _budget_of(options: argparse.Namespace) -> dict[str, Any]:
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
