"""Tables in the documentation, kept between markers so that a command can write them anew."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def put(page: str, section: str, text: str, by: str) -> str:
    """Returns a page with a text between the two markers of a section.

    Args:
        page: Markdown with `<!-- SECTION: by BY -->` and `<!-- end of SECTION -->`.
        section: its name.
        text: what is to stand between them.
        by: the file that writes it.

    Raises:
        ValueError: the markers are not there, once each.
    """
    begin, end = f"<!-- {section}: by {by} -->", f"<!-- end of {section} -->"
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table whose first column is text, and whose others are numbers."""
    lines = [headings, ["---"] + ["---:"] * (len(headings) - 1), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
