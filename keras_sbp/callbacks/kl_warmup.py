"""The callback that brings the KL in slowly."""

from __future__ import annotations

import keras

from keras_sbp._arguments import check_count
from keras_sbp.callbacks.snr_monitor import require_gates
from keras_sbp.callbacks.train_function import guarded, set_full_kl, while_this_fit_runs
from keras_sbp.layers import SBPLayer


class KLWarmup(keras.callbacks.Callback):
    """Raises the weight of the KL linearly over the first epochs.

    With `E = epochs` and `S = start_epoch`, the factor on the KL of every gate
    is constant within an epoch:

    - 0 in the epochs before `S`,
    - `1/(E+1), 2/(E+1), ..., E/(E+1)` in the `E` epochs from `S` on,
    - 1 from epoch `S + E` on.

    So no epoch from `S` on trains with a factor of 0, not even a single one.
    Epochs are counted from 0, as `fit()` counts them: training resumed with
    `fit(initial_epoch=...)` goes on where it stopped. When training ends, the
    factor is 1 again, for whatever trains the model next; after a `fit()` that
    was interrupted, with the first step of the next one.

    Reference:
        Sonderby et al. (2016), Ladder Variational Autoencoders, section 2.3
        (deterministic warm-up of the KL).

    Args:
        epochs: Integer, 0 or greater, the number of epochs with a factor
            between 0 and 1.
        start_epoch: Integer, 0 or greater, the epoch where the rise begins.

    Raises:
        TypeError: If an argument is not an integer.
        ValueError: If an argument is negative; when training begins, if the
            model has no gate.

    Example:

    >>> callbacks = [keras_sbp.KLWarmup(10), keras_sbp.SNRMonitor()]
    >>> history = model.fit(x, y, epochs=50, callbacks=callbacks)
    """

    def __init__(self, epochs: int, start_epoch: int = 0) -> None:
        super().__init__()
        self.epochs = check_count("KLWarmup", "epochs", epochs, at_least=0)
        self.start_epoch = check_count("KLWarmup", "start_epoch", start_epoch, at_least=0)
        self._gates: list[SBPLayer] = []

    def __repr__(self) -> str:
        return f"{type(self).__name__}(epochs={self.epochs}, start_epoch={self.start_epoch})"

    def factor(self, epoch: int) -> float:
        """Returns the factor on the KL in an epoch, counted from 0."""
        return min(max((epoch - self.start_epoch + 1) / (self.epochs + 1), 0.0), 1.0)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Finds the gates."""
        self._gates = require_gates(self.model, type(self).__name__)
        guarded(self.model).warm(self._gates)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the factor of this epoch."""
        holds = while_this_fit_runs(self.model)
        for gate in self._gates:
            gate.kl_weighting.weaken(self.factor(epoch), holds)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Leaves the gates with their full KL."""
        set_full_kl(self._gates)
