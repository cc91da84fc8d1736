"""What twins are made of where tf_keras has no such layer, and the error where nothing helps."""

from __future__ import annotations

import functools
from collections.abc import Sequence
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


@functools.cache
def take_layer() -> type:
    """Returns the tf_keras layer that selects units by their indices."""
    import tensorflow as tf
    import tf_keras

    @tf_keras.utils.register_keras_serializable(package="keras_sbp", name="Take")
    class Take(tf_keras.layers.Layer):
        """The units at some indices along an axis, in their order."""

        def __init__(self, indices: Sequence[int], axis: int, **options: Any) -> None:
            super().__init__(**options)
            self.indices, self.axis = list(indices), axis

        def call(self, inputs: Any) -> Any:
            """Returns the selected units."""
            return tf.gather(inputs, tf.constant(self.indices, tf.int32), axis=self.axis)

        def get_config(self) -> dict[str, Any]:
            """Returns the constructor's arguments."""
            return super().get_config() | {"indices": self.indices, "axis": self.axis}

    return Take


def cast(x: Any, dtype: str) -> Any:
    """`x` in another dtype."""
    import tensorflow as tf

    return x if x.dtype == dtype else tf.cast(x, dtype)


def hard_sigmoid(x: Any, name: str) -> Any:
    """relu6(x + 3) / 6; Keras 2 knows another function by this name."""
    import tf_keras

    x = tf_keras.layers.Rescaling(1.0, offset=3.0, name=f"{name}_shift")(x)
    x = tf_keras.layers.ReLU(6.0, name=f"{name}_clip")(x)
    return tf_keras.layers.Rescaling(1.0 / 6.0, name=name)(x)


def hard_silu(x: Any, name: str) -> Any:
    """x · hard_sigmoid(x)."""
    import tf_keras

    return tf_keras.layers.Multiply(name=name)([x, hard_sigmoid(x, f"{name}_gate")])
