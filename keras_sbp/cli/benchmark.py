"""`keras-sbp benchmark`: files side by side."""

from __future__ import annotations

import argparse
import os
import pathlib

from keras_sbp.cli import arguments, model_files
from keras_sbp.cli.errors import UsageError, told_to_the_user
from keras_sbp.cli.modules import import_modules
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
    arguments.add_imports(parser)
    arguments.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command.

    Args:
        options: Parsed arguments.

    Returns:
        The exit code.
    """
    with output(options.json, options.quiet) as out:
        with out.step(f"Measuring {len(options.models)} models") as tell, told_to_the_user():
            import_modules(options.imports)
            for path in options.models:
                _check(path)
            from keras_sbp.benchmarking.benchmark import measure

            result = measure(
                _named(options.models),
                batch_size=options.batch_size,
                num_threads=options.threads,
                memory=not options.no_memory,
                tell=tell,
                **arguments.given(repeats=options.repeats),
            )
        result.print(out.console)
        out.result(result.to_dict())
    return 0


def _named(paths: list[str]) -> dict[str, str]:
    """By their file names, if these tell them apart; a path that comes again is numbered."""
    named = {pathlib.Path(path).name: path for path in paths}
    if len(named) == len(paths):
        return named
    times = [paths[: i + 1].count(path) for i, path in enumerate(paths)]
    return {
        path if time == 1 else f"{path} ({time})": path
        for path, time in zip(paths, times, strict=True)
    }


def _check(path: str) -> None:
    if not os.path.exists(path):
        raise UsageError(f"'{path}' does not exist. Expected a file, or a SavedModel folder.")
    if path.endswith(".keras"):
        model_files.check_model_file(pathlib.Path(path))
