"""What a user did wrong, as opposed to what the program did wrong."""

from __future__ import annotations

import contextlib
import contextvars
import re
from collections.abc import Collection, Iterator

_LONGEST = 2000

# What an argument in Python is called here, where it is called something else. Options of `insert`
# are advised by other commands, too.
_NAMES = {
    "representative_data": "calibration",
    "num_threads": "threads",
    "verify": "verify_data",
}
_WORDS = {
    ("verify", "False"): "--no-verify",
    ("verify", "examples"): "--verify-data FILE.npz",
    ("batch_size", "None"): "--batch-size free",
    ("tie_residual", "True"): "--tie-residual",
}
_OF_INSERT = ("--tie-residual",)
_COMMANDS = {"keras_sbp.insert_sbp": "keras-sbp insert", "keras_sbp.prune": "keras-sbp prune"}
_VALUE = r"""'[^']*'|"[^"]*"|\([^()]*\)|\.\.\.|[\w.+-]*\w"""
_QUOTES = "'\""
_CALL = re.compile(rf"(?:keras_sbp\.)?\w+\(\.\.\., (\w+)=({_VALUE})\)")
_ARGUMENT = re.compile(rf"\b(\w+)=({_VALUE})")
_NAME = re.compile(r"`(\w+)`")

_flags: contextvars.ContextVar[Collection[str]] = contextvars.ContextVar(
    "keras_sbp_flags", default=()
)


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


def said(error: BaseException | str) -> str:
    """What an error or warning says, in terms of options; the beginning, if it goes on and on."""
    text = in_options(str(error).strip()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


@contextlib.contextmanager
def with_options(flags: Collection[str]) -> Iterator[None]:
    """Has messages of the library name a command's options, such as `--min-keep`."""
    token = _flags.set(flags)
    try:
        yield
    finally:
        _flags.reset(token)


def in_options(text: str) -> str:
    """Returns a text with options in the place of arguments in Python, where there are such."""
    text = _CALL.sub(_option, text)
    text = _ARGUMENT.sub(_option, text)
    text = _NAME.sub(lambda found: _flag(found[1]) or found[0], text)
    for function, command in _COMMANDS.items() if _flags.get() else ():
        text = re.sub(rf"\b{re.escape(function)}\b(?!\()", command, text)
    return text


def _option(found: re.Match) -> str:
    name, value = found[1], found[2]
    flag = _flag(name)
    word = _WORDS.get((name, value))
    if word is not None:
        return word if word.partition(" ")[0] in {*_flags.get(), *_OF_INSERT} else found[0]
    if flag is None:
        return found[0]
    if value in ("True", "False"):
        return flag if value == "True" else f"no {flag}"
    return f"{flag} {value.strip(_QUOTES)}"


def _flag(name: str) -> str | None:
    flag = f"--{_NAMES.get(name, name).replace('_', '-')}"
    return flag if flag in _flags.get() else None
