"""Reading the command line and calling the command."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Sequence

from keras_sbp.cli import benchmark, compress, demo, export, insert, inspect, prune
from keras_sbp.cli.arguments import Parser
from keras_sbp.cli.errors import CheckFailed, UsageError, said, with_options
from keras_sbp.version import __version__

# One module per command, each with `add_parser(commands)`.
_COMMANDS = (inspect, compress, insert, prune, export, benchmark, demo)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; `None` means those of the process.

    Returns:
        The exit code: 0 done, 1 a check or a runtime failed, 2 wrong use, 130 interrupted.
    """
    parser = Parser(
        prog="keras-sbp",
        description="Structured Bayesian pruning for Keras 3.",
        epilog="Exit codes: 0 done, 1 a check or a runtime failed, 2 wrong use, 130 interrupted. "
        "keras-sbp COMMAND --help has examples.",
    )
    parser.add_argument("--version", action="version", version=f"keras-sbp {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="command", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    parser.set_defaults(after_interruption="Nothing was written.", refuse_unknown=None)
    words = sys.argv[1:] if argv is None else argv
    try:
        options, unknown = parser.parse_known_args(words)
        if unknown:
            if options.refuse_unknown is not None:
                options.refuse_unknown(options, unknown)
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    except SystemExit as stop:  # argparse has printed its message: 0 for --help, 2 for wrong use.
        return int(stop.code or 0)
    except UsageError as error:
        return _failed(argparse.Namespace(debug="--debug" in words), str(error), 2)
    with with_options(options.flags):
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    try:
        import keras_sbp.public  # noqa: F401 (registers the layers that models may hold)

        code = options.run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # Whoever read the output has seen enough.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _failed(options, f"interrupted. {options.after_interruption}", 130)
    except UsageError as error:
        return _failed(options, str(error), 2)
    except CheckFailed as error:
        return _failed(options, str(error), 1)
    except Exception as error:  # Runtimes, backends and formats have their own.
        hint = "" if options.debug else " --debug shows where."
        return _failed(options, f"{type(error).__name__}: {said(error)}{hint}", 1)


def _failed(options: argparse.Namespace, message: str, code: int) -> int:
    with contextlib.suppress(BrokenPipeError):
        if options.debug:
            traceback.print_exc()
        sys.stderr.write(f"keras-sbp: {message}\n")
    return code
