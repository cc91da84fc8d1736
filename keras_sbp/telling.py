"""What the package tells its user: warnings at the user's line, and lines of progress."""

from __future__ import annotations

import logging
import sys
import warnings
from types import FrameType

import keras

logger = logging.getLogger("keras_sbp")

# Whose frames may lie between the user's line and ours: Keras's and what is built on it, the
# backends', and those that Python itself puts in between.
_KERAS = {"keras_sbp", "keras", "keras_hub", "keras_tuner", "tf_keras"}
_BETWEEN = _KERAS | {"tensorflow", "jax", "torch", "contextlib", "functools", "threading"}


def warn(message: str) -> None:
    """Gives a `UserWarning` at the innermost line that is neither ours nor Keras's.

    A callback is many frames of Keras and of its backend away from the line that called `fit()`,
    and that line is what the user can change.
    """
    frame = _users_frame()
    warnings.warn_explicit(
        message,
        UserWarning,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=frame.f_globals.get("__name__"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def write(line: str) -> None:
    """Writes a line where Keras's progress bar goes.

    That is standard output or, with Keras's interactive logging disabled, the logger "keras_sbp".
    """
    if keras.config.is_interactive_logging_enabled():
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    else:
        logger.info(line)


def _users_frame() -> FrameType:
    """The innermost frame of other code; the outermost of all if there is none, as in threads."""
    frame = sys._getframe()
    while _is_between(frame) and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _is_between(frame: FrameType) -> bool:
    module = frame.f_globals.get("__name__") or ""
    return module.partition(".")[0] in _BETWEEN
