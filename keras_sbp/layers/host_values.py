"""Reading the variables of a gate outside compiled functions."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops


def host_value(variable: keras.Variable) -> np.ndarray:
    """Returns the value of a variable.

    Whoever is about to write a variable outside compiled functions should
    read it first: what is written while the trainer holds the value is lost.

    Raises:
        RuntimeError: If Keras's JAX trainer holds the value.
    """
    try:
        value = variable.value
    except TypeError as error:
        # Keras asks for the initializer that it no longer has.
        raise RuntimeError(
            f"The variable '{variable.path}' has no value now. Keras's JAX trainer takes the "
            "values of all variables with the first step of an epoch, and gives them back when the "
            "epoch ends. In a callback's batch hook, call self.model.jax_state_sync() before you "
            "read or write a gate. If a training step has raised an error, the values may be lost: "
            "build or load the model again."
        ) from error
    return ops.convert_to_numpy(value)
