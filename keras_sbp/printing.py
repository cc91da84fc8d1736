"""How reports are printed: to a console, and in the manner of `keras.Model.summary`."""

from __future__ import annotations

import abc
import io
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import keras
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from keras_sbp.telling import logger

# What stands for our signs where the output's encoding has none, such as a pipe on Windows.
_PLAIN = str.maketrans("→×Δµ±–—…", ">xDu~--.")
# Names of less than this could not be told apart.
_SHORTEST_NAME = 9
_UNITS = ((1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T"), (1e15, "P"))


class Printable(abc.ABC):
    """A report that can be printed."""

    @abc.abstractmethod
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the parts of the report, fitted to `options.max_width`."""

    def print(self, console: Console | None = None) -> None:
        """Prints the report.

        Args:
            console: where to; standard output by default.
        """
        console = console or Console(highlight=False)
        if _can_show_signs(console):
            console.print(self)
            return
        with console.capture() as captured:
            console.print(self)
        text = captured.get().translate(_PLAIN)
        console.file.write(text.encode(console.encoding, "replace").decode(console.encoding))

    def summary(
        self, line_length: int | None = None, print_fn: Callable[[str], object] | None = None
    ) -> None:
        """Prints the report as `keras.Model.summary` prints a model.

        Args:
            line_length: the width; that of the terminal by default.
            print_fn: is called with the whole text. By default it goes to standard output or,
                with Keras's interactive logging disabled, to the logger `"keras_sbp"`.
        """
        if print_fn is None and keras.config.is_interactive_logging_enabled():
            self.print(Console(width=line_length, highlight=False))
            return
        text = io.StringIO()
        Console(file=text, width=line_length, highlight=False).print(self)
        (print_fn or logger.info)(text.getvalue())


def _can_show_signs(console: Console) -> bool:
    try:
        "".join(map(chr, _PLAIN)).encode(console.encoding)
    except UnicodeEncodeError:
        return False
    return True


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    width: int,
    total: Sequence[str] | None = None,
    styles: Sequence[str] | None = None,
) -> Table:
    """Returns a table with a name in the first column and numbers in the others.

    Nothing is cut. Names that are too long for the width go on in a second line, behind one of
    their separators; so do numbers before and after, where they would leave no room for names.

    Args:
        headings: one per column.
        rows: one string per column; rows of a single string are headings of a group.
        width: of the whole table.
        total: the last row, set apart.
        styles: of `rich`, one per row; none by default.
    """
    rows = [*rows, *([total] if total else [])]
    room = _room(headings, rows, width)
    if room < _SHORTEST_NAME:
        folding = [(row[0], *(cell.replace("→ ", "→\n") for cell in row[1:])) for row in rows]
        total, rows = folding[-1] if total else None, folding
        room = max(_SHORTEST_NAME, _room(headings, rows, width))
    result = Table()
    result.add_column(headings[0], overflow="fold")
    for heading in headings[1:]:
        result.add_column(heading, justify="right", no_wrap=True)
    for row, style in zip(rows, styles or [""] * len(rows), strict=True):
        if row is total:
            result.add_section()
        result.add_row(folded(row[0], room), *(Text(cell) for cell in row[1:]), style=style)
    return result


def _room(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> int:
    """Returns how much of a width is left for names."""
    return width - width_of(headings, [("", *row[1:]) for row in rows]) + len(headings[0])


def width_of(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> int:
    """Returns how wide a `table` has to be for every name to stay in one line."""
    rows = [headings, *rows]
    names = max(len(row[0]) for row in rows)
    numbers = zip(*(row[1:] for row in rows if len(row) > 1), strict=True)
    widest = (max(len(line) for cell in column for line in cell.split("\n")) for column in numbers)
    return names + sum(widest) + 3 * len(headings) + 1


def grouped(rows: Iterable[Sequence[str]]) -> list[Sequence[str]]:
    """Returns the rows, those of one composite layer together below a heading."""
    result: list[Sequence[str]] = []
    for path, group in itertools.groupby(rows, lambda row: row[0].rpartition("/")[0]):
        together = list(group)
        if path and len(together) > 1:
            result.append((f"{path}/",))
            together = [(f"  {row[0].removeprefix(f'{path}/')}", *row[1:]) for row in together]
        result += together
    return result


def folded(name: str, width: int) -> Text:
    """Returns a name in lines of this width, broken behind separators."""
    indent = name[: len(name) - len(name.lstrip())]
    lines = [indent]
    for part in re.split(r"(?<=[_/(])|(?<=[.-])(?=\D)|(?=\s)", name.lstrip()):
        if lines[-1].strip() and len(lines[-1]) + len(part) > width:
            lines.append(f"{indent}  ")
            part = part.lstrip()
        lines[-1] += part
    return Text("\n".join(lines))


def notes(texts: Iterable[str], marks: Iterable[str] = itertools.repeat("-")) -> RenderableType:
    """Returns sentences as a list, below a table, with a mark in front of each."""
    return _Notes(list(zip(marks, texts, strict=False)))


@dataclass(frozen=True)
class _Notes:
    """A list of marks and sentences; unlike a grid, it does not fill lines up with spaces."""

    items: Sequence[tuple[str, str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        indent = max((len(mark) for mark, _ in self.items), default=0) + 1
        for mark, text in self.items:
            for line in Text(text, overflow="fold").wrap(
                console, max(1, options.max_width - indent)
            ):
                line.rstrip()
                yield Text(mark.ljust(indent)) + line
                mark = ""


def exact(number: int) -> str:
    """Returns a number with all digits."""
    return f"{number:,}"


def short(number: int) -> str:
    """Returns a number of five digits or more with three of them: `12.3M`."""
    if number < 10_000:
        return exact(number)
    scale, unit = next((each for each in _UNITS if number / each[0] < 999.5), _UNITS[-1])
    return f"{number / scale:#.3g}".rstrip(".") + unit


def change(before: int, after: int, show: Callable[[int], str] = exact) -> str:
    """Returns a number before and after, or once if it is the same."""
    return show(before) if before == after else f"{show(before)} → {show(after)}"


def fewer(before: int, after: int, what: str) -> str:
    """Returns how many times fewer of something there are."""
    if not after < before:
        return f"no fewer {what}"
    return f"{before / after:.2f}× fewer {what}" if after else f"no {what} left"


def ranges(numbers: Iterable[int]) -> str:
    """Returns ascending numbers in short: `0–3, 7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("–".join(map(str, run)) for run in runs)


def named(names: Iterable[str]) -> str:
    """Returns names in quotes, with commas."""
    return ", ".join(f"'{name}'" for name in names)
