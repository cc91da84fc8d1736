"""The network with gates that `compress` trains."""

from __future__ import annotations

from typing import Any

import keras

from keras_sbp.callbacks import SNRMonitor
from keras_sbp.callbacks.pace import Pace
from keras_sbp.compression.settings import fresh
from keras_sbp.insertion import insert_sbp
from keras_sbp.insertion.gated_copy import gated_copy
from keras_sbp.layers import find_gates
from keras_sbp.program import trace

# What log sigma begins with and how far it can get while the gates train. At -3 a unit has an
# SNR of 20; a travel of 7 is beyond the widest posterior.
_LOG_SIGMA, _TRAVEL = -3.0, 7.0
# What the KL of all units weighs in the loss, if each has one nat.
_KL = 0.18
# Of an epoch, where nobody knows.
_STEPS = 100


def gated_network(model: keras.Model, steps: int | None, epochs: int) -> keras.Model:
    """Returns a model with gates that can get anywhere within some epochs.

    A model that has gates already is copied with these.

    Args:
        model: The user's compiled model.
        steps: Of an epoch; None where nobody knows.
        epochs: How many the gates have.
    """
    if find_gates(model):
        return gated_copy(trace(model), {})
    options: dict[str, Any] = {"tie_residual": True, "kl_weight": "macs", "verbose": 0}
    # The multiplier is fixed when a gate is made, and depends on how many units there will be.
    units = sum(gate.units for gate in find_gates(insert_sbp(model, **options)))
    return insert_sbp(
        model,
        num_samples=units / _KL,
        log_sigma_initializer=_LOG_SIGMA,
        learning_rate_multiplier=_multiplier(model, steps or _STEPS, epochs, _KL / units),
        **options,
    )


def _multiplier(model: keras.Model, steps: int, epochs: int, gradient: float) -> float:
    """What lets log sigma travel, if the KL alone moves it with this gradient."""
    pace = Pace(fresh(model.optimizer), steps)
    if pace.normalises is False:
        return _TRAVEL / pace.reach_by_gradient(epochs, gradient)
    return _TRAVEL / pace.reach(epochs)


def told_by(gated: keras.Model) -> list[keras.callbacks.Callback]:
    """Returns what gates that do not know the size of the data are told it by."""
    return [SNRMonitor(verbose=0)] if any(g.num_samples is None for g in find_gates(gated)) else []
