"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def render(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose first column is text and whose others are numbers.

    Args:
        title: Heading.
        columns: Column names.
        rows: One sequence of strings per row.

    Returns:
        A `rich` table.
    """
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    return table


def console() -> Console:
    """Where commands write what they have to say."""
    return Console(highlight=False)
