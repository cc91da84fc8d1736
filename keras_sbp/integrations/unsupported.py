"""What cannot be carried over."""

from __future__ import annotations

from typing import Any


class UnsupportedLayerError(ValueError):
    """A layer or operation has no counterpart in the other package.

    Args:
        operation: The layer or operation.
        why: The reason, in a few words.
    """

    def __init__(self, operation: Any, why: str) -> None:
        super().__init__(
            f"'{operation.name}' (of type {type(operation).__name__}) cannot be turned into a "
            f"tf_keras layer: {why}. Expected stock layers that Keras 2 has too. Replace it, or "
            "rebuild the model in tf_keras by hand and copy the weights."
        )
