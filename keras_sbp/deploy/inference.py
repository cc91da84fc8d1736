"""A model as it is at inference, for tracers that do not say so."""

from __future__ import annotations

from typing import Any

import keras


class Inference(keras.Model):
    """A model whose every call is one at inference.

    Keras traces some formats without saying whether it trains. A layer then goes by its own
    default, and that of `RandomFlip` and its like is training. What is called inside of this model
    with `training=False` hears nothing else, however deep it lies.

    Args:
        model: A built model. It is shared, not copied, and not changed.
    """

    def __init__(self, model: keras.Model) -> None:
        # Inputs reach the model as they come; it has its own opinion of their dtypes.
        super().__init__(name=model.name, autocast=False)
        self.model = model
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Call the model at inference."""
        return self.model(inputs, training=False)
