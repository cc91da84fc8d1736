"""One error, and what its message says to do about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

ERRORS = (TypeError, ValueError, RuntimeError, ImportError, OSError)


def case(words: str, wrong: Callable[[], Any], right: Callable[[], Any]) -> Any:
    """Returns a case of a parametrised test.

    Args:
        words: of the sentence that names the remedy.
        wrong: raises an error that says so.
        right: does what the words say; fails if that does not help.
    """
    return pytest.param(words, wrong, right, id=words[:40])


def check_remedy(words: str, wrong: Callable[[], Any], right: Callable[[], Any]) -> None:
    """Meets the error, reads its remedy, and applies it."""
    with pytest.raises(ERRORS) as caught:
        wrong()
    assert words in str(caught.value)
    right()
