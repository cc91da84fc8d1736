"""What must not change while a handler works."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_sbp.testing.claims import fail
from keras_sbp.testing.trial import Rebuilt, Trial, same


@dataclass
class Snapshot:
    """The layer of a trial and the arguments of its handler, as they were."""

    settings: Any
    weights: list[np.ndarray]
    arguments: Any

    @classmethod
    def of(cls, trial: Trial) -> Snapshot:
        """Remembers the current state."""
        operation = trial.op.operation
        weights = [keras.ops.convert_to_numpy(each) for each in _weights(operation)]
        return cls(_settings(operation), weights, copy.deepcopy((trial.known, trial.needed)))

    def require_unchanged(self, trial: Trial, rebuilt: Rebuilt) -> None:
        """Fails where the state is another one now, or the new network contains the old layer."""
        now = Snapshot.of(trial)
        name = f"'{trial.op.name}'"
        if now.settings != self.settings:
            fail(trial, f"the config of {name} was {self.settings}; now it is {now.settings}")
        if not same(now.weights, self.weights):
            fail(trial, f"the weights of {name} have changed")
        if not same(now.arguments, self.arguments):
            fail(trial, "the knowledge or needs given to the handler have changed")
        if not all(source is None or source.is_unchanged() for source in rebuilt.sources):
            fail(
                trial,
                "a Slim given to the handler has changed; dataclasses.replace() makes another",
            )
        operation = trial.op.operation
        if any(each is operation for each in rebuilt.model.operations):
            fail(trial, f"the new network calls the old {name}; make a new layer")
        old = {id(each) for each in _weights(operation)}
        if any(id(each) in old for each in rebuilt.model.weights):
            fail(trial, f"the new network shares weights with {name}; copy them")


def _weights(operation: Any) -> list:
    return getattr(operation, "weights", [])


def _settings(operation: Any) -> Any:
    if isinstance(operation, keras.layers.Layer):
        return operation.get_config()
    return {key: repr(value) for key, value in vars(operation).items() if key[0] != "_"}
