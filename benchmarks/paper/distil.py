"""The loss of a small network that learns from labels and from a larger network."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_sbp_benchmarks")
class Distillation(keras.losses.Loss):
    """Cross-entropy with the label, and divergence from the teacher (Hinton et al. 2015).

    Args:
        part: weight of the divergence, in [0, 1]; the cross-entropy gets the rest.
        temperature: that both sets of logits are divided by; the divergence is multiplied by its
            square, so that its gradient keeps its size.
    """

    def __init__(self, part: float, temperature: float, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.part, self.temperature = part, temperature

    def call(self, y_true, y_pred):
        """Returns the loss of each example."""
        label, teacher = ops.cast(y_true[:, 0], "int32"), y_true[:, 1:]
        hard = keras.losses.sparse_categorical_crossentropy(label, y_pred, from_logits=True)
        log_p = ops.log_softmax(teacher / self.temperature)
        log_q = ops.log_softmax(y_pred / self.temperature)
        soft = ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1) * self.temperature**2
        return (1.0 - self.part) * hard + self.part * soft

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return super().get_config() | {"part": self.part, "temperature": self.temperature}
