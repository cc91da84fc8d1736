"""Classes of tf_keras and tfmot that can only be defined once these packages are imported."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any


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


@functools.cache
def without_weights() -> type:
    """Returns the tfmot configuration for layers that have nothing to quantise but their output."""
    from keras_sbp.integrations.tfmot import import_tfmot

    keras = import_tfmot().quantization.keras

    class WithoutWeights(keras.QuantizeConfig):
        """What comes out gets a range of its own, or keeps that of what goes in.

        Args:
            new_range: Whether the output's range differs from the input's.
        """

        def __init__(self, new_range: bool) -> None:
            self.new_range = new_range

        def get_weights_and_quantizers(self, layer: Any) -> list:
            """Returns nothing."""
            return []

        def get_activations_and_quantizers(self, layer: Any) -> list:
            """Returns nothing."""
            return []

        def set_quantize_weights(self, layer: Any, quantize_weights: Any) -> None:
            """Does nothing."""
            del layer, quantize_weights  # TensorFlow cannot compile a function without statements.

        def set_quantize_activations(self, layer: Any, quantize_activations: Any) -> None:
            """Does nothing."""
            del layer, quantize_activations

        def get_output_quantizers(self, layer: Any) -> list:
            """Returns what finds the output's range, if it has one of its own."""
            if not self.new_range:
                return []
            quantizer = keras.quantizers.MovingAverageQuantizer
            options = {"per_axis": False, "symmetric": False, "narrow_range": False}
            return [quantizer(num_bits=8, **options)]

        def get_config(self) -> dict[str, Any]:
            """Returns the constructor's arguments."""
            return {"new_range": self.new_range}

    return WithoutWeights
