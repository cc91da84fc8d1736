"""The code in the pages of the documentation."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[1]
BLOCK = re.compile(
    r"^```(?P<fence>python|py)\n(?P<shown>.*?)^```$|^<!-- python\n(?P<hidden>.*?)^-->$",
    re.DOTALL | re.MULTILINE,
)


def blocks(text: str, fence: str) -> Iterator[tuple[int, str]]:
    """Yields (line number, code); hidden blocks belong to the fence `python`."""
    for match in BLOCK.finditer(text):
        if (match["fence"] or "python") == fence:
            code = match["shown"] if match["hidden"] is None else match["hidden"]
            yield text[: match.start()].count("\n") + 2, code
