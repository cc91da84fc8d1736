"""What a user did wrong, as opposed to what the program did wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_LONGEST = 2000


class UsageError(Exception):
    """A message for the user; the command ends with exit code 2 and no traceback."""


class CheckFailed(Exception):  # noqa: N818 (nothing went wrong but the result)
    """A message for the user; the command ends with exit code 1 and no traceback."""


@contextlib.contextmanager
def told_to_the_user() -> Iterator[None]:
    """Passes on what the library says against its arguments, without a traceback.

    The library raises `RuntimeError` where a comparison failed, and the others where it was
    asked for something that it cannot do.

    Raises:
        CheckFailed: A comparison failed.
        UsageError: The arguments, or the files, are not what they should be.
    """
    try:
        yield
    except BrokenPipeError:  # An OSError, but nothing is wrong with any file.
        raise
    except NotImplementedError as error:  # a RuntimeError, but no comparison
        raise UsageError(said(error)) from error
    except RuntimeError as error:
        raise CheckFailed(said(error)) from error
    except (ValueError, TypeError, OSError, ImportError) as error:
        raise UsageError(said(error)) from error
    except MemoryError as error:
        raise UsageError(f"there is not enough memory. {error}") from error


def said(error: BaseException) -> str:
    """What an error says; the beginning, if it goes on and on."""
    text = str(error).strip() or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
