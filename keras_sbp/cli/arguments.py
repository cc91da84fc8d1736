"""Arguments that several commands have."""

from __future__ import annotations

import argparse
import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any


class Parser(argparse.ArgumentParser):
    """A parser of which some options depend on others, and which tells what options there are.

    Attributes:
        before_parsing: Is called with all words, and may add options.
    """

    before_parsing: Callable[[Sequence[str]], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Returns the parsed arguments, and the words that are none."""
        if self.before_parsing is not None:
            self.before_parsing(args)
        found, unknown = super().parse_known_args(args, namespace)
        if not hasattr(found, "flags"):  # not those of a command
            found.flags = frozenset(self._option_string_actions)
        return found, unknown


def add_command(
    commands: argparse._SubParsersAction, name: str, *, help: str, description: str, examples: str
) -> Parser:
    """Declares a command whose help ends with examples."""
    parser = commands.add_parser(
        name,
        help=help,
        description=description,
        epilog="examples:\n" + textwrap.indent(textwrap.dedent(examples).strip(), "  "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quiet", action="store_true", help="do not say what is being done")
    add_debug(parser)
    return parser


def add_debug(parser: argparse.ArgumentParser) -> None:
    """Declares that tracebacks are shown."""
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Declares the model to read."""
    parser.add_argument("model", metavar="MODEL", help="a .keras file; it is loaded in safe mode")
    add_imports(parser)


def add_imports(parser: argparse.ArgumentParser) -> None:
    """Declares the modules that define the classes in `.keras` files."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="import a Python module that registers layers of your own, installed or from the "
        "current folder; may be given several times",
    )


def add_target(parser: argparse.ArgumentParser, metavar: str, help: str) -> None:
    """Declares the file to write."""
    parser.add_argument("-o", "--output", required=True, metavar=metavar, help=help)
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declares the output for scripts."""
    parser.add_argument(
        "--json", action="store_true", help="write one JSON object to the standard output"
    )


def positive(text: str) -> int:
    """An integer above 0."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a positive number, received {text}")
    return value


def positive_number(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, received {text}")
    return value


def fraction(text: str) -> float:
    """A number above 0, at most 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(
            f"expected a number above 0 and at most 1, received {text}"
        )
    return value


def names(text: str) -> list[str]:
    """Names with commas between them."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise argparse.ArgumentTypeError("expected names with commas between them")
    return found


def given(**options: Any) -> dict[str, Any]:
    """Those options that are not None, so that the library's defaults hold for the others."""
    return {name: value for name, value in options.items() if value is not None}
