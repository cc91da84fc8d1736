"""Where commands write: results to the standard output, all else to the standard error."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape

from keras_sbp.cli.errors import said

Tell = Callable[[float, str], None]


class Output:
    """What a command says.

    Args:
        as_json: Whether the result is one JSON object, for scripts; otherwise it is tables and
            sentences, for people.
        stdout: Where the result goes.
        quiet: Whether to say nothing of what is being done.
    """

    def __init__(self, as_json: bool, stdout: TextIO, quiet: bool = False) -> None:
        self._as_json, self._stdout = as_json, stdout
        self.console = Console(file=stdout, highlight=False, quiet=as_json)
        self._notes = Console(stderr=True, highlight=False, quiet=quiet)

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[Tell]:
        """Says what is being done while it is done, and then how long it took.

        Yields:
            A function that takes the share that is done, and what is being done now. On a terminal
            both are in one line that changes; elsewhere every new thing is a line.
        """
        start = time.perf_counter()
        if self._notes.is_terminal:
            with self._notes.status(escape(what)) as status:
                yield lambda share, now: status.update(escape(f"{what}: {now} ({share:.0%})"))
        else:
            said = [f"{what} ..."]
            self._note(said[0])

            def tell(share: float, now: str) -> None:
                if now != said[-1]:
                    said.append(now)
                    self._note(f"{what}: {now} ({share:.0%})")

            yield tell
        self._note(f"{what}: {time.perf_counter() - start:.1f} s")

    def _note(self, text: str) -> None:
        self._notes.print(text, soft_wrap=True, markup=False)

    def say(self, text: str) -> None:
        """Writes a sentence, for people only."""
        self.console.print(text, soft_wrap=True, markup=False)

    def result(self, values: Mapping[str, Any]) -> None:
        """Writes the result, for scripts only."""
        if self._as_json:
            json.dump(_plain(values), self._stdout, indent=2, allow_nan=False)
            self._stdout.write("\n")


@contextlib.contextmanager
def output(as_json: bool, quiet: bool = False) -> Iterator[Output]:
    """Keeps the standard output free of what Keras, TensorFlow and warnings have to say.

    Yields:
        An `Output`.
    """
    stdout = sys.stdout
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.showwarning = _show_warning
        yield Output(as_json, stdout, quiet)


def _show_warning(message: Any, category: type, filename: str, *more: Any, **most: Any) -> None:
    if issubclass(category, UserWarning) and "tensorflow" not in filename:
        sys.stderr.write(f"keras-sbp: warning: {said(message)}\n")


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # NumPy
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
