"""Draws the rooms of the package and who imports whom: `python -m tools.rooms`.

Rooms, imports and the sentence on each room are read from the code. The picture is
`docs/images/rooms.svg`, which CONTRIBUTING.md shows; a test compares it with the code.
"""

from __future__ import annotations

import ast
import textwrap
from html import escape
from pathlib import Path

import keras_sbp

PACKAGE = Path(keras_sbp.__file__).parent
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "rooms.svg"
# In this order; a room imports only from rooms before it.
ROOMS = [
    "version",
    "_keras",
    "_optimizers",
    "_arguments",
    "telling",
    "printing",
    "comparing",
    "distributions",
    "rules",
    "layers",
    "program",
    "handlers",
    "formats",
    "benchmarking",
    "insertion",
    "evidence",
    "pruning",
    "testing",
    "exporting",
    "integrations",
    "callbacks",
    "compression",
    "public",
    "demo",
    "cli",
    "__init__",
    "__main__",
]
# What is made of the rooms, but is none.
DOORS = ("version", "public", "__init__", "__main__")

_LINE, _COLUMN, _LETTERS = 32, 15, 54
_LEFT, _SENTENCE, _GRID = 12, 112, 432


def module_of(path: Path) -> str:
    """Returns the dotted name of a file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(path: Path) -> str:
    """Returns the room that a file of the package is in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(source: str) -> set[str]:
    """Returns the package's modules that a source names, also for types only and in functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= named & MODULES.keys() or {node.module}
    return found & MODULES.keys()


def imports() -> set[tuple[str, str]]:
    """Returns the pairs of rooms of which the first imports from the second."""
    pairs = {
        (room_of(path), room_of(MODULES[name]))
        for path in MODULES.values()
        for name in imported(path.read_text("utf-8"))
    }
    return {(room, other) for room, other in pairs if room != other}


def sentence(room: str) -> str:
    """Returns the first sentence of a room's docstring."""
    folder = PACKAGE / room / "__init__.py"
    path = folder if folder.exists() else PACKAGE / f"{room}.py"
    first = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n\n")[0]
    return " ".join(first.split()).replace("`", "")


def picture() -> str:
    """Returns the picture as SVG text: the last room on top, and a line from room to room.

    A line goes right from the room that imports to a dot, and down to the square of the other.
    """
    rows = {room: number for number, room in enumerate(reversed(ROOMS))}
    width, height = _GRID + _COLUMN * len(ROOMS) + _LEFT, _LINE * len(ROOMS) + 8
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="11">',
        "<title>The rooms of keras_sbp: each imports only from rooms below it</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    pairs = imports()
    for row in range(0, len(ROOMS), 2):
        top = _y(row) - _LINE // 2
        drawn.append(f'<rect y="{top}" width="{width}" height="{_LINE}" fill="#f4f6f8"/>')
    for room, row in rows.items():
        reached = [rows[other] for one, other in pairs if one == room]
        reading = [rows[one] for one, other in pairs if other == room]
        if reached:
            drawn.append(_line(_x(row), _y(row), _x(max(reached)), _y(row)))
        if reading:
            drawn.append(_line(_x(row), _y(min(reading)), _x(row), _y(row)))
    for room, other in sorted(pairs, key=lambda pair: (rows[pair[0]], rows[pair[1]])):
        at = f'cx="{_x(rows[other])}" cy="{_y(rows[room])}"'
        drawn.append(f'<circle {at} r="3.5"><title>{room} imports {other}</title></circle>')
    for room, row in rows.items():
        drawn += _row(room, row)
    return "\n".join([*drawn, "</svg>", ""])


def _x(row: int) -> int:
    return _GRID + _COLUMN * row + _COLUMN // 2


def _y(row: int) -> int:
    return _LINE * row + _LINE // 2 + 4


def _line(x1: int, y1: int, x2: int, y2: int) -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#9aa5b1"/>'


def _row(room: str, row: int) -> list[str]:
    """The name, what the room is, and its square."""
    fill = "#999" if room in DOORS else "#1f6fb2"
    lines = textwrap.wrap(sentence(room), _LETTERS)
    first = _y(row) + 4 - 6 * (len(lines) - 1)
    return [
        f'<text x="{_LEFT}" y="{_y(row) + 4}" font-weight="bold" fill="{fill}">{room}</text>',
        *(
            f'<text x="{_SENTENCE}" y="{first + 13 * number}">{escape(line)}</text>'
            for number, line in enumerate(lines)
        ),
        f'<rect x="{_x(row) - 5}" y="{_y(row) - 5}" width="10" height="10" fill="{fill}"/>',
    ]


if __name__ == "__main__":
    PICTURE.write_text(picture(), "utf-8")
