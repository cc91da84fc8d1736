"""Training a small network on labels, and on what the network says that it was pruned from."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from benchmarks.paper.training import ShuffledBatches
from keras_sbp.cli.data import Dataset


class ShiftedImages(ShuffledBatches):
    """Batches of images, and of targets that hold the label and the teacher's logits.

    Args:
        data: the images of digits, with empty borders.
        teacher: the network to compare with.
        shift: images are moved by up to so many pixels, each anew in each epoch.
        seed: of order and shifts.
        batch_size: examples per batch.

    Targets are of shape (batch, 11): the label, then ten logits.
    """

    def __init__(
        self, data: Dataset, teacher: keras.Model, shift: int, seed: int, batch_size: int
    ) -> None:
        self._x, self._y = data.x_train, data.y_train
        each = range(-shift, shift + 1)
        self._shifts = [(down, right) for down in each for right in each]
        self._logits = np.stack(
            [
                teacher.predict(np.roll(self._x, moved, (1, 2)), batch_size=1000, verbose=0)
                for moved in self._shifts
            ]
        )
        super().__init__(len(self._x), seed, batch_size)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.chosen(number)
        moves = self._moves[chosen]
        x = self._x[chosen]
        for move in np.unique(moves):
            x[moves == move] = np.roll(x[moves == move], self._shifts[move], (1, 2))
        return x, np.concatenate([self._y[chosen, None], self._logits[moves, chosen]], 1)

    def draw(self, rng: np.random.Generator) -> None:
        """Draws each image's shift."""
        self._moves = rng.integers(len(self._shifts), size=len(self._x))


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
