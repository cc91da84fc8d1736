"""Where the zoo's topologies are collected."""

from __future__ import annotations

from collections.abc import Callable

import keras

ZOO: dict[str, Callable[[], keras.Model]] = {}


def topology(build: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
    """Adds a function that builds a gated model to the zoo, under its own name."""
    if build.__name__ in ZOO:
        raise ValueError(f"two topologies are named {build.__name__}")
    ZOO[build.__name__] = build
    return build
