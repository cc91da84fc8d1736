"""Keeping entries of `logs` out of the progress bar."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras


def hide_from_progress_bar(model: keras.Model, names: Iterable[str]) -> None:
    """Has entries of an epoch's `logs` reach every callback but the progress bar.

    Keras hands one dict to all callbacks in turn, `History` second to last
    and the bar last. So the entries go, once, as soon as `History` has them.

    Args:
        model: The model in `fit()`, in `on_epoch_end`.
        names: Keys of `logs`.
    """
    history = getattr(model, "history", None)
    if not isinstance(history, keras.callbacks.History):
        return

    def record_and_hide(epoch: int, logs: dict[str, Any] | None = None) -> None:
        del history.on_epoch_end  # what is left is the method of its class
        history.on_epoch_end(epoch, logs)
        for name in names:
            (logs or {}).pop(name, None)

    history.on_epoch_end = record_and_hide
