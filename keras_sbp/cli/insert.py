"""`keras-sbp insert`: from a model to the same model with gates, ready to be trained."""

from __future__ import annotations

import argparse

from keras_sbp.cli import arguments, model_files
from keras_sbp.cli.errors import told_to_the_user
from keras_sbp.cli.output import output

_DESCRIPTION = """\
Put gates into a model wherever units can go, keep its weights, and save it. Train it in Python,
with keras_sbp.SNRMonitor() as a callback, and then prune it."""
_EXAMPLES = """
keras-sbp insert trained.keras -o gated.keras
keras-sbp insert resnet.keras -o gated.keras --tie-residual --kl-weight macs
keras-sbp insert resnet.keras -o gated.keras --gate branch
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Declare the command's arguments."""
    parser = arguments.add_command(
        commands,
        "insert",
        help="put gates into a model",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
    )
    arguments.add_model(parser)
    arguments.add_target(parser, "OUT.keras", "where the model with gates goes")
    parser.add_argument(
        "--gate",
        choices=("units", "branch"),
        default="units",
        help="gate units, or residual branches as a whole (default: units)",
    )
    parser.add_argument(
        "--placement",
        choices=("activation", "layer"),
        default="activation",
        help="behind the last activation, or right behind the layer (default: activation)",
    )
    parser.add_argument(
        "--layers", type=arguments.names, metavar="A,B", help="only the units of these layers"
    )
    parser.add_argument(
        "--exclude", type=arguments.names, default=[], metavar="A,B", help="not of these"
    )
    parser.add_argument(
        "--tie-residual", action="store_true", help="gate the units of residual streams too"
    )
    parser.add_argument(
        "--attention",
        choices=("heads", "heads+width", "none"),
        default="heads",
        help="what to gate of attention layers (default: heads)",
    )
    parser.add_argument(
        "--kl-weight",
        type=_kl_weight,
        default=1.0,
        metavar="W",
        help="a number, or 'macs' for weights in proportion to what a unit costs (default: 1)",
    )
    parser.add_argument(
        "--num-samples",
        type=arguments.positive,
        metavar="N",
        help="number of training examples (default: SNRMonitor finds out)",
    )
    arguments.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command.

    Args:
        options: Parsed arguments.

    Returns:
        The exit code.
    """
    target = model_files.check_target(options.output, options.overwrite)
    with output(options.json, options.quiet) as out:
        with out.step(f"Loading {options.model}"):
            model = model_files.load(options.model, options.imports)
        with out.step("Inserting gates"), told_to_the_user():
            from keras_sbp.insertion import gates_report, insert_sbp
            from keras_sbp.layers import find_gates

            gated = insert_sbp(
                model,
                placement=options.placement,
                num_samples=options.num_samples,
                layers=options.layers,
                exclude=options.exclude,
                tie_residual=options.tie_residual,
                kl_weight=options.kl_weight,
                gate=options.gate,
                attention=None if options.attention == "none" else options.attention,
                verbose=0,
            )
            report = gates_report(gated)
        model_files.save(gated, target)
        gates = [{"name": gate.name, "units": gate.units} for gate in find_gates(gated)]
        report.print(out.console)
        out.say(f"Saved {target}, {target.stat().st_size:,} bytes")
        sizes = {"path": str(target), "bytes": target.stat().st_size}
        of_layers = report.to_dict()["layers"]
        out.result({"model": options.model, **sizes, "gates": gates, "gates_of_layers": of_layers})
    return 0


def _kl_weight(text: str) -> float | str:
    if text == "macs":
        return text
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:
        raise argparse.ArgumentTypeError(
            f"expected a number of 0 or more, or macs, received {text}"
        )
    return value
