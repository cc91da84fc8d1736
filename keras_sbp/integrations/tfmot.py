"""To tensorflow-model-optimization, which works on tf_keras (Keras 2) models only."""

from __future__ import annotations

import functools
from typing import Any

from keras_sbp.integrations._imports import import_tf_keras, import_tfmot
from keras_sbp.integrations._parts import UnsupportedLayerError, take_layer
from keras_sbp.integrations.tf_keras import to_tf_keras

__all__ = ["UnsupportedLayerError", "import_tfmot", "quantize_model", "to_tf_keras"]


def quantize_model(model: Any) -> Any:
    """Makes a model aware of its quantisation, as tfmot's function of this name does.

    In addition, it takes models with the selections of units and the constant factors (`Rescaling`)
    that pruning may leave, on which tfmot's own function stops.

    Args:
        model: A functional `tf_keras.Model`, from `to_tf_keras`.

    Returns:
        A new `tf_keras.Model`, to be compiled, trained and converted to LiteRT.

    Raises:
        ImportError: tensorflow-model-optimization is not installed.
        RuntimeError: It does not support a layer of the model, or an order of layers.

    Example:

    ```python
    aware = keras_sbp.integrations.tfmot.quantize_model(to_tf_keras(small))
    aware.compile("adam", "sparse_categorical_crossentropy")
    aware.fit(x, y)
    ```
    """
    quantization = import_tfmot().quantization.keras
    tf_keras = import_tf_keras()
    new_range = {take_layer(): False, tf_keras.layers.Rescaling: True}
    config = _without_weights()

    def annotated(layer: Any) -> Any:
        if type(layer) in new_range:
            return quantization.quantize_annotate_layer(layer, config(new_range[type(layer)]))
        return layer

    with quantization.quantize_scope({config.__name__: config, "Take": take_layer()}):
        marked = tf_keras.models.clone_model(model, clone_function=annotated)
        return quantization.quantize_apply(quantization.quantize_annotate_model(marked))


@functools.cache
def _without_weights() -> type:
    """Returns the tfmot configuration for layers that have nothing to quantise but their output."""
    keras: Any = import_tfmot().quantization.keras

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
