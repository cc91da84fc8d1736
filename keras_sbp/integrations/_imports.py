"""The packages behind the bridges, imported when a function needs them."""

from __future__ import annotations

import os
import types

_VARIABLE = "TF_USE_LEGACY_KERAS"


def import_tf_keras() -> types.ModuleType:
    """Imports tf_keras, or says what to install."""
    try:
        import tf_keras
    except ImportError as error:
        raise _not_installed("tf_keras") from error
    return tf_keras


def import_tfmot() -> types.ModuleType:
    """Imports tensorflow-model-optimization without what it does to the process.

    Its own import sets the environment variable `TF_USE_LEGACY_KERAS`, and thereby turns
    `tf.keras` into Keras 2 for whatever comes later, child processes included. Here the variable
    is left as it was, and `tf.keras` is what it would have been.

    Returns:
        The module `tensorflow_model_optimization`.

    Raises:
        ImportError: It is not installed, or its versions do not fit each other.

    Example:

    ```python
    tfmot = keras_sbp.integrations.tfmot.import_tfmot()
    sparse = tfmot.sparsity.keras.prune_low_magnitude(to_tf_keras(small))
    ```
    """
    before = os.environ.get(_VARIABLE)
    try:
        import tensorflow as tf

        getattr(tf.keras, "version", None)  # tf.keras is chosen when it is first looked at
        import tensorflow_model_optimization as tfmot
    except ImportError as error:
        raise _not_installed("tensorflow-model-optimization") from error
    finally:
        os.environ.pop(_VARIABLE, None)
        if before is not None:
            os.environ[_VARIABLE] = before
    return tfmot


def _not_installed(package: str) -> ImportError:
    return ImportError(
        f"{package} is needed and cannot be imported. Install it: pip install 'keras-sbp[tfmot]'"
    )
