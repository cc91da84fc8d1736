"""Reading the command line and calling the command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from keras_sbp.cli import benchmark, demo, export, insert, inspect, prune
from keras_sbp.cli.errors import CheckFailed, UsageError
from keras_sbp.version import __version__

# One module per command, each with `add_parser(commands)`.
_COMMANDS = (inspect, insert, prune, export, benchmark, demo)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; `None` means those of the process.

    Returns:
        The exit code: 0 done, 1 a check failed, 2 wrong use, 130 interrupted.
    """
    parser = argparse.ArgumentParser(
        prog="keras-sbp",
        description="Structured Bayesian pruning for Keras 3.",
        epilog="Exit codes: 0 done, 1 a check failed, 2 wrong use, 130 interrupted. "
        "keras-sbp COMMAND --help has examples.",
    )
    parser.add_argument("--version", action="version", version=f"keras-sbp {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="command", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    parser.set_defaults(after_interruption="Nothing was written.")
    try:
        options = parser.parse_args(argv)
    except SystemExit as stop:  # argparse has printed its message: 0 for --help, 2 for wrong use.
        return int(stop.code or 0)
    try:
        return options.run(options)
    except UsageError as error:
        sys.stderr.write(f"keras-sbp: {error}\n")
        return 2
    except CheckFailed as error:
        sys.stderr.write(f"keras-sbp: {error}\n")
        return 1
    except BrokenPipeError:  # Whoever read the output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        sys.stderr.write(f"keras-sbp: interrupted. {options.after_interruption}\n")
        return 130
