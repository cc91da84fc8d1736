"""`keras-sbp prune`: from a gated model to a smaller one."""

from __future__ import annotations

import argparse

from keras_sbp.cli import arguments, model_files, rules
from keras_sbp.cli.arrays import read_inputs
from keras_sbp.cli.errors import told_to_the_user
from keras_sbp.cli.output import output

_DESCRIPTION = """\
Remove the units that are not needed, and save the smaller network: stock Keras layers that compute
the same function. Both are compared; if they differ, nothing is written and the
exit code is 1."""
_EXAMPLES = """
keras-sbp prune gated.keras -o small.keras
keras-sbp prune gated.keras -o small.keras --rule bmrs-uniform --bits 4 --round-to 8
keras-sbp prune plain.keras -o small.keras --rule l2 --budget macs=0.25 --reweight images.npz
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Declare the command's arguments."""
    parser = arguments.add_command(
        commands,
        "prune",
        help="remove the units that are not needed",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
    )
    arguments.add_model(parser)
    arguments.add_target(parser, "OUT.keras", "where the small model goes")
    rules.add_rule(parser)
    parser.add_argument(
        "--reweight",
        metavar="FILE.npz",
        help="a few hundred inputs (array x): the layers that read removed units get new weights "
        "by least squares",
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse a model with layers that must stay whole"
    )
    compared = parser.add_mutually_exclusive_group()
    compared.add_argument(
        "--verify-data",
        metavar="FILE.npz",
        help="inputs (array x) to compare both models on; default: random ones",
    )
    compared.add_argument("--no-verify", action="store_true", help="do not compare both models")
    arguments.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command.

    Args:
        options: Parsed arguments.

    Returns:
        The exit code.
    """
    rules.check_rule(options)
    target = model_files.check_target(options.output, options.overwrite)
    with output(options.json, options.quiet) as out:
        with out.step(f"Loading {options.model}"):
            model = model_files.load(options.model, options.imports)
        rule = rules.rule_of(options, model)
        examples = options.reweight and read_inputs(options.reweight, model, "--reweight")
        compared = options.verify_data and read_inputs(options.verify_data, model, "--verify-data")
        with out.step("Pruning"), told_to_the_user():
            from keras_sbp.pruning import prune

            small, report = prune(
                model,
                rule,
                verify=not options.no_verify if compared is None else compared,
                strict=options.strict,
                round_to=options.round_to,
                reweight=examples,
            )
        model_files.save(small, target)
        report.print(out.console)
        out.say(f"Saved {target}, {target.stat().st_size:,} bytes")
        sizes = {"path": str(target), "bytes": target.stat().st_size}
        out.result({"model": options.model, **sizes, **report.to_dict()})
    return 0
