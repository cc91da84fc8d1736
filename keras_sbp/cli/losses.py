"""Losses that are named by options."""

from __future__ import annotations

from typing import Any

from keras_sbp.cli.errors import UsageError

FROM_LOGITS = "--from-logits"


def named_loss(name: str, from_logits: bool) -> Any:
    """Returns a loss of Keras.

    Raises:
        UsageError: There is none of this name, or none that takes logits.
    """
    import keras

    if not from_logits:
        return keras.losses.get(name)
    of_class = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    try:
        return keras.losses.get({"class_name": of_class, "config": {"from_logits": True}})
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"--loss {name} does not go with {FROM_LOGITS}. Expected a loss of probabilities, "
            "such as sparse_categorical_crossentropy. Pass one, or leave the option out."
        ) from error
