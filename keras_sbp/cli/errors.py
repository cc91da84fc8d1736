"""What a user did wrong, as opposed to what the program did wrong."""

from __future__ import annotations


class UsageError(Exception):
    """A message for the user; the command ends with exit code 2 and no traceback."""
