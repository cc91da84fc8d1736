"""The training step of a model that callbacks have told something for the length of a `fit()`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_sbp.layers import SBPLayer


class TrainFunction:
    """Runs a model's compiled step, but not with what a callback said in an earlier `fit()`.

    A compiled step asks no gate again whether it knows the number of samples:
    without this, a `fit()` without the callback, on other data, would train
    with the number of the data before. A `fit()` that is interrupted does not
    tell its callbacks that it ended: without this, the next one would train
    with the part of the KL that `KLWarmup` had got to. It stands in the model's
    public `train_function`, which `compile()` makes anew.

    Args:
        model: The compiled model.

    Attributes:
        has_run: Whether a step has ever gone through.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._function: Any = None
        self._told: Sequence[SBPLayer] = ()
        self._warmed: Sequence[SBPLayer] = ()
        self._run: Any = None
        self.has_run = False

    def renew(self) -> None:
        """Takes a new compiled step of the model in the place of one that has never gone through.

        It costs nothing, and TensorFlow cannot use a function again whose
        first run raised, as it does without a callback.
        """
        if not self.has_run:
            self._model.make_train_function(force=True)
            self._function = self._model.train_function
        self._model.train_function = self

    def tell(self, gates: Sequence[SBPLayer]) -> None:
        """Takes the gates that a callback tells the number of samples in this `fit()`."""
        self._begin()
        self._told = gates

    def warm(self, gates: Sequence[SBPLayer]) -> None:
        """Takes the gates whose KL a callback weakens in this `fit()`."""
        self._begin()
        self._warmed = gates

    def _begin(self) -> None:
        """Takes back what was said in a `fit()` before."""
        if _run_of(self._model) is not self._run:
            self._run = _run_of(self._model)
            self._forget()
            set_full_kl(self._warmed)
            self._warmed = ()

    def _forget(self) -> None:
        for gate in self._told:
            gate.kl_weighting.forget()

    def __call__(self, *arguments: Any) -> Any:
        """Returns what the model's own function returns.

        Raises:
            RuntimeError: If a gate that trains does not know the number of
                samples.
        """
        if _run_of(self._model) is not self._run:
            arguments = self._with_full_kl(arguments)
            self._begin()
        for gate in self._told:
            if gate.called_in_training:
                gate.kl_weighting.require_known()
        result = self._function(*arguments)
        self.has_run = True
        return result

    def _with_full_kl(self, arguments: tuple) -> tuple:
        """The arguments of a step; under JAX the values of all variables are among them."""
        if keras.backend.backend() != "jax" or not self._warmed:
            return arguments
        (trainable, others, *more), *rest = arguments
        factors = {id(gate.kl_factor) for gate in self._warmed}
        others = [
            keras.ops.ones_like(value) if id(variable) in factors else value
            for variable, value in zip(self._model.non_trainable_variables, others, strict=True)
        ]
        return (trainable, others, *more), *rest


def guarded(model: keras.Model) -> TrainFunction:
    """Sees to it that the model's step trains only with what is said in this `fit()`."""
    function = model.train_function
    guard = function if isinstance(function, TrainFunction) else TrainFunction(model)
    guard.renew()
    return guard


def set_full_kl(gates: Sequence[SBPLayer]) -> None:
    """Gives gates the whole KL."""
    for gate in gates:
        gate.kl_weighting.restore()


def while_this_fit_runs(model: keras.Model) -> Callable[[], bool]:
    """Returns whether the `fit()` that runs now is still the last one that began, as a function."""
    run, model_ref = _run_of(model), weakref.ref(model)
    return lambda: _run_of(model_ref()) is run


def _run_of(model: keras.Model) -> Any:
    """The `History` of the running or last `fit()`; each has its own."""
    return getattr(model, "history", None)
