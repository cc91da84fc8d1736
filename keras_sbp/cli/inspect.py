"""`keras-sbp inspect`: what the gates say, and what would go."""

from __future__ import annotations

import argparse
import pathlib
from typing import TYPE_CHECKING, Any

from keras_sbp.cli import arguments, model_files, rules
from keras_sbp.cli.errors import CheckFailed, UsageError, told_to_the_user
from keras_sbp.cli.output import Output, output

if TYPE_CHECKING:
    import keras

    from keras_sbp.pruning import PruneReport

_QUANTILES = (0.05, 0.5, 0.95)
_DESCRIPTION = """\
Show which layers of a model have a gate and why the others have none, the signal-to-noise ratios
(SNR) of the gates' units, and what `keras-sbp prune` would make of each layer with the same
options. Nothing is written. The exit code is 1 if the model cannot be pruned like this."""
_EXAMPLES = """
keras-sbp inspect gated.keras
keras-sbp inspect plain.keras --rule l2 --budget macs=0.5
keras-sbp inspect gated.keras --json | jq '.macs_before / .macs_after'
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Declare the command's arguments."""
    parser = arguments.add_command(
        commands,
        "inspect",
        help="show the gates of a model, and what would go",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
    )
    arguments.add_model(parser)
    rules.add_rule(parser)
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
    with output(options.json, options.quiet) as out:
        with out.step(f"Loading {options.model}"):
            model = model_files.load(options.model, options.imports)
        rule = rules.rule_of(options, model)
        gates = _gates(model)
        report, problem = None, ""
        with told_to_the_user():
            from keras_sbp.insertion import gates_report

            of_layers = gates_report(model)
        try:
            with out.step("Trying to prune"), told_to_the_user():
                report = _report(model, rule, options.round_to)
        except (UsageError, CheckFailed) as error:
            if not gates:
                raise
            problem = str(error)
        for gate in report.gates if report else ():
            if gate.name in gates:
                gates[gate.name]["kept"] = gate.units_after
        size = pathlib.Path(options.model).stat().st_size
        found = report.to_dict() if report else {"problem": problem}
        of_layers.print(out.console)
        _show(out, gates, report)
        found |= {"gates": list(gates.values()), "gates_of_layers": of_layers.to_dict()["layers"]}
        out.result({"model": options.model, "bytes": size, **found})
        if problem:
            raise CheckFailed(problem)
    return 0


def _report(model: keras.Model, rule: Any, round_to: int) -> PruneReport:
    from keras_sbp.pruning import prune

    return prune(model, rule, round_to=round_to, verify=False)[1]


def _gates(model: keras.Model) -> dict[str, dict[str, Any]]:
    import numpy as np

    from keras_sbp.layers import find_gates

    found = {}
    for gate in find_gates(model):
        snr = np.quantile(gate.snr(), _QUANTILES)
        found[gate.name] = {
            "name": gate.name,
            "units": gate.units,
            "kept": int(gate.keep().sum()),
            "frozen": int((~gate.alive).sum()),
            "rule": repr(gate.rule),
            "snr": {f"p{round(100 * q)}": float(v) for q, v in zip(_QUANTILES, snr, strict=True)},
        }
    return found


def _show(out: Output, gates: dict[str, dict[str, Any]], report: PruneReport | None) -> None:
    if gates:
        from keras_sbp.printing import table

        headings = ("gate", "units", "would stay", "frozen", "SNR 5 %", "SNR 50 %", "SNR 95 %")
        rows = [
            (
                gate["name"],
                *(f"{gate[key]:,}" for key in ("units", "kept", "frozen")),
                *(f"{value:.3g}" for value in gate["snr"].values()),
            )
            for gate in gates.values()
        ]
        out.console.print(table(headings, rows, out.console.width))
    else:
        out.say(
            "No gates. `keras-sbp insert` puts some in, to be trained; the rules l1, l2, "
            "batch-norm, random, taylor and input-change need none."
        )
    if report is not None:
        out.say("What `keras-sbp prune` would make of it:")
        report.print(out.console)
