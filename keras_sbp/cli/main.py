"""Reading the command line and calling the command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from keras_sbp.cli import demo
from keras_sbp.cli.errors import UsageError
from keras_sbp.version import __version__

# One module per command, each with `add_parser(commands)`.
_COMMANDS = (demo,)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; `None` means those of the process.

    Returns:
        The exit code: 0 done, 1 a check failed, 2 wrong use, 130 interrupted.
    """
    parser = argparse.ArgumentParser(
        prog="keras-sbp", description="Structured Bayesian pruning for Keras 3."
    )
    parser.add_argument("--version", action="version", version=f"keras-sbp {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="command", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    try:
        options = parser.parse_args(argv)
    except SystemExit as stop:  # argparse has printed its message: 0 for --help, 2 for wrong use.
        return int(stop.code or 0)
    try:
        return options.run(options)
    except UsageError as error:
        sys.stderr.write(f"keras-sbp: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("keras-sbp: interrupted; the same command continues from here.\n")
        return 130
