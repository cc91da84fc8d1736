"""`keras-sbp benchmark`: files side by side."""

from __future__ import annotations

import argparse
import os
import pathlib

from keras_sbp.cli import arguments, model_files
from keras_sbp.cli.errors import UsageError, told_to_the_user
from keras_sbp.cli.output import output

_DESCRIPTION = """\
Measure size, loading time, latency and memory of models, in turns, so that the ratios hold on a
machine that does other things as well. The first one is what the others are compared with."""
_EXAMPLES = """
keras-sbp benchmark large.tflite small.tflite
keras-sbp benchmark plain.keras small.keras small_int8.tflite --repeats 200
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Declare the command's arguments."""
    parser = arguments.add_command(
        commands,
        "benchmark",
        help="measure files side by side",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
    )
    parser.add_argument("models", nargs="+", metavar="FILE", help="files, or SavedModel folders")
    parser.add_argument("--batch-size", type=arguments.positive, default=1, metavar="N")
    parser.add_argument("--threads", type=arguments.positive, default=1, metavar="N")
    parser.add_argument("--repeats", type=arguments.positive, metavar="N", help="turns for each")
    parser.add_argument(
        "--no-memory", action="store_true", help="spare the new process per model that it takes"
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
    for path in options.models:
        _check(path)
    with output(options.json) as out:
        with out.step(f"Measuring {len(options.models)} models"), told_to_the_user():
            import keras_sbp

            result = keras_sbp.benchmark(
                _named(options.models),
                batch_size=options.batch_size,
                num_threads=options.threads,
                memory=not options.no_memory,
                **arguments.given(repeats=options.repeats),
            )
        result.print(out.console)
        out.result(result.to_dict())
    return 0


def _named(paths: list[str]) -> dict[str, str] | list[str]:
    """By their file names, as long as these tell them apart."""
    named = {pathlib.Path(path).name: path for path in paths}
    return named if len(named) == len(paths) else paths


def _check(path: str) -> None:
    if not os.path.exists(path):
        raise UsageError(f"'{path}' does not exist. Expected a file, or a SavedModel folder.")
    if path.endswith(".keras"):
        model_files.check_model_file(pathlib.Path(path))
