"""What converters and runtimes write to the screen: kept back, and told where something fails."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pathlib
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from typing import IO, Any

# Those whose logs, and warnings about one another, are of no use to who exports a model.
_PACKAGES = ("tf2onnx", "tensorflow", "absl", "keras", "onnx", "openvino", "jax")
_LONGEST_NOTE = 4000
# The process has one standard error: who keeps it back must give it back before the next one.
_LOCK = threading.RLock()


@contextlib.contextmanager
def kept_back() -> Iterator[None]:
    """While this lasts, nothing that converters write reaches the screen.

    Their C++ writes to the process's descriptors 1 and 2, which lead to a temporary file then. What
    other threads print still comes through, except where they write to these descriptors
    themselves. If the block raises, the error gets what was written as a note, the end of it if it
    is long. Warnings about the user's own code are passed on.

    One thread at a time: a second one waits.
    """
    with _LOCK, tempfile.TemporaryFile() as file:
        try:
            with _warnings_sorted(), _redirected(file):
                yield
        except Exception as error:
            note = _note(file)
            if note:
                error.add_note(note)
            raise


@contextlib.contextmanager
def _redirected(file: IO[bytes]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        text = io.TextIOWrapper(
            os.fdopen(os.dup(file.fileno()), "wb"), "utf-8", "replace", write_through=True
        )
        stack.enter_context(text)
        for name, descriptor in (("stdout", 1), ("stderr", 2)):
            screen = stack.enter_context(_descriptor(descriptor, file.fileno()))
            stream = getattr(sys, name)
            if stream is not None:
                if _leads_to(stream, descriptor) and screen is not None:
                    stream = stack.enter_context(_stream(screen, stream))
                stack.callback(setattr, sys, name, getattr(sys, name))
                setattr(sys, name, _ByThread(text, stream))
        for package in _PACKAGES:
            stack.enter_context(_logged(logging.getLogger(package), text))
        yield


@contextlib.contextmanager
def _descriptor(number: int, target: int) -> Iterator[int | None]:
    """Lets a descriptor lead elsewhere; gives one for where it led, `None` if it is closed."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    try:
        before = os.dup(number)
    except OSError:
        yield None
        return
    os.dup2(target, number)
    try:
        yield before
    finally:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            (sys.stdout if number == 1 else sys.stderr).flush()
        os.dup2(before, number)
        os.close(before)


def _leads_to(stream: Any, descriptor: int) -> bool:
    try:
        return stream.fileno() == descriptor
    except (AttributeError, OSError, ValueError):
        return False  # A notebook's, or one in memory.


def _stream(descriptor: int, like: Any) -> io.TextIOWrapper:
    raw = os.fdopen(os.dup(descriptor), "wb")
    errors = getattr(like, "errors", None) or "replace"
    return io.TextIOWrapper(raw, like.encoding, errors, write_through=True)


class _ByThread(io.TextIOBase):
    """Keeps what the thread that made it writes, and passes on what the others write."""

    def __init__(self, kept: Any, others: Any) -> None:
        self._kept, self._others = kept, others
        self._thread = threading.get_ident()

    def _here(self) -> Any:
        return self._kept if threading.get_ident() == self._thread else self._others

    def write(self, text: str) -> int:
        return self._here().write(text)

    def flush(self) -> None:
        self._here().flush()

    def isatty(self) -> bool:
        return self._here().isatty()

    def fileno(self) -> int:
        return self._here().fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]  # in `io` it is a property too
        return getattr(self._here(), "encoding", None) or "utf-8"


@contextlib.contextmanager
def _logged(logger: logging.Logger, text: Any) -> Iterator[None]:
    """Logs to a stream alone: its own handlers may hold the screen since before."""
    before = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [logging.StreamHandler(text)], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before


@contextlib.contextmanager
def _warnings_sorted() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as given:
        yield
    homes = {pathlib.Path(file).parent for file in map(_file_of, _PACKAGES) if file}
    for each in given:
        if not homes & set(pathlib.Path(each.filename).parents):
            warnings.showwarning(each.message, each.category, each.filename, each.lineno)


def _file_of(package: str) -> str | None:
    return getattr(sys.modules.get(package), "__file__", None)


def _note(file: IO[bytes]) -> str:
    file.seek(0)
    said = file.read().decode("utf-8", "replace").strip()
    left_out = len(said) - _LONGEST_NOTE
    if left_out > 0:
        said = f"({left_out} characters left out) ... {said[-_LONGEST_NOTE:]}"
    return f"Written meanwhile by what converts or runs the model:\n{said}" if said else ""
