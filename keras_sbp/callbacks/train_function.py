"""The training step of a model that is told the number of samples by a callback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_sbp.layers import SBPLayer


class TrainFunction:
    """Runs a model's compiled step, but not with what a callback said in an earlier `fit()`.

    A compiled step asks no gate again whether it knows the number of samples:
    without this, a `fit()` without the callback, on other data, would train
    with the number of the data before. It stands in the model's public
    `train_function`, which `compile()` makes anew.

    Args:
        model: The compiled model.
        function: Its own `train_function`.

    Attributes:
        has_run: Whether a step has ever gone through.
    """

    def __init__(self, model: keras.Model, function: Any) -> None:
        self._model = model
        self._function = function
        self._gates: Sequence[SBPLayer] = ()
        self._run: Any = None
        self.has_run = False

    def begin_fit(self, gates: Sequence[SBPLayer]) -> None:
        """Takes the gates that the callback has just told."""
        self._gates = gates
        self._run = _run_of(self._model)

    def __call__(self, *arguments: Any) -> Any:
        """Returns what the model's own function returns.

        Raises:
            RuntimeError: If a gate that trains does not know the number of
                samples.
        """
        # A fit() that was interrupted never told its callbacks that it ended.
        if _run_of(self._model) is not self._run:
            for gate in self._gates:
                gate.kl_weighting.forget()
            self._run = _run_of(self._model)
        for gate in self._gates:
            if gate.called_in_training:
                gate.kl_weighting.require_known()
        result = self._function(*arguments)
        self.has_run = True
        return result


def guard_train_function(model: keras.Model, gates: Sequence[SBPLayer]) -> None:
    """Sees to it that the model's step trains only with what is said in this `fit()`.

    A step that has never gone through is made anew. It costs nothing, and
    TensorFlow cannot use a function again whose first run raised, as it does
    without the callback.
    """
    function = model.train_function
    if not (isinstance(function, TrainFunction) and function.has_run):
        model.make_train_function(force=True)
        model.train_function = TrainFunction(model, model.train_function)
    model.train_function.begin_fit(gates)


def _run_of(model: keras.Model) -> Any:
    """The `History` of the running or last `fit()`; each has its own."""
    return getattr(model, "history", None)
