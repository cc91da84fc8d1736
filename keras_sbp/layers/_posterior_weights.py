"""What a gate holds, as weights of a layer and as a file: posterior, living units, seed state.

A weight of the posterior holds `raw = value / multiplier`, and the value is computed so that its
derivative with respect to the raw one is 1. A step of the optimizer then moves the value
`multiplier` times as far as it would without, under SGD and under Adam alike, and no optimizer has
to know.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sbp.distributions import TruncatedLogNormal

# The maths holds outside these ranges too; inside them, gradients are worth following.
_MU_ABOVE_LOG_HIGH = 5.0
_LOG_SIGMA_RANGE = (-20.0, 5.0)

_PARAMETERS = ("mu", "log_sigma")
_MULTIPLIER = "learning_rate_multiplier"
_ALIVE = "alive"
_SEED = "seed_state"


class StoredPosterior:
    """Creates, reads, writes, saves and loads the weights of one gate.

    Args:
        layer: The gate, with its constructor arguments set.
        units: How many it has.
        dtype: Dtype of the gate's arithmetic.
    """

    def __init__(self, layer: keras.layers.Layer, units: int, dtype: str) -> None:
        self._layer = layer
        self.units = units
        self._dtype = dtype
        mu_range = (layer.log_low, layer.log_high + _MU_ABOVE_LOG_HIGH)
        self.mu = self._add_weight("mu", layer.mu_initializer, mu_range)
        self.log_sigma = self._add_weight(
            "log_sigma", layer.log_sigma_initializer, _LOG_SIGMA_RANGE
        )
        # 1 for units that are there, 0 for those removed for good. A float, as every backend and
        # every distribution strategy takes it.
        self.alive = layer.add_weight(
            shape=(self.units,),
            initializer="ones",
            dtype=dtype,
            trainable=False,
            autocast=False,
            aggregation="none",
            name=_ALIVE,
        )

    def _add_weight(self, name: str, initializer: Any, value_range: tuple) -> keras.Variable:
        multiplier = self._layer.learning_rate_multiplier
        low, high = value_range
        return self._layer.add_weight(
            shape=(self.units,),
            initializer=raw_initializer(initializer, multiplier),
            dtype=self._dtype,
            autocast=False,
            constraint=Between(low / multiplier, high / multiplier),
            name=name,
        )

    def tensor(self) -> TruncatedLogNormal:
        """Returns the posterior with backend tensors inside, of gradient 0 for frozen units."""
        return self._posterior(self._value(raw) for raw in (self.mu, self.log_sigma))

    def _value(self, weight: keras.Variable) -> Any:
        raw = ops.convert_to_tensor(weight)
        # A choice, not a product: the gradient is 0 even where a frozen unit's arithmetic fails.
        raw = ops.where(self.alive_tensor(), raw, ops.stop_gradient(raw))
        return from_raw(raw, self._layer.learning_rate_multiplier)

    def alive_tensor(self) -> Any:
        """Returns which units are there, as a boolean tensor."""
        return ops.convert_to_tensor(self.alive) > 0.5

    def alive_host(self) -> np.ndarray:
        """Returns which units are there, as a boolean NumPy array."""
        return host_value(self.alive) > 0.5

    def write_alive(self, alive: np.ndarray) -> None:
        """Writes which units are there, one boolean per unit."""
        self.alive_host()  # raises where a write would be lost
        self._assign_alive(alive)

    def _assign_alive(self, alive: np.ndarray) -> None:
        self.alive.assign(alive.astype(self._dtype))

    def host(self) -> TruncatedLogNormal:
        """Returns the posterior with NumPy float64 inside."""
        return self._posterior(self._layer.learning_rate_multiplier * self._host_raw())

    def _posterior(self, values: Any) -> TruncatedLogNormal:
        mu, log_sigma = values
        return TruncatedLogNormal(mu, log_sigma, self._layer.log_low, self._layer.log_high)

    def _host_raw(self) -> np.ndarray:
        return np.array(
            [host_value(weight) for weight in (self.mu, self.log_sigma)], dtype="float64"
        )

    def count_bad_units(self) -> int:
        """Returns how many units have NaN or Inf in mu or log sigma."""
        return int(np.sum(~np.isfinite(self._host_raw()).all(axis=0)))

    def write(self, mu: Any, log_sigma: Any) -> None:
        """Writes values, each a number or one per unit; nothing if one is refused."""
        values = [self._check("mu", mu), self._check("log_sigma", log_sigma)]
        self._host_raw()  # raises where a write would be lost
        for weight, value in zip((self.mu, self.log_sigma), values, strict=True):
            weight.assign(value / self._layer.learning_rate_multiplier)

    def _check(self, name: str, values: Any) -> np.ndarray:
        layer = self._layer
        values = np.asarray(values, dtype="float64")
        if values.shape not in ((), (self.units,)):
            raise ValueError(
                f"SBPLayer '{layer.name}' has {self.units} units. Expected `{name}` to be a "
                f"number or of shape ({self.units},). Received: shape {values.shape}."
            )
        bad = int(np.sum(~np.isfinite(values)))
        if bad:
            raise ValueError(
                f"SBPLayer '{layer.name}' cannot take a posterior with NaN or Inf. Expected finite "
                f"`{name}`. Received: {bad} of {values.size} values that are not finite."
            )
        return np.broadcast_to(values, (self.units,))

    def save(self, store: Any) -> None:
        """Puts raw weights, the multiplier behind them, `alive` and the seed state into `store`."""
        for name in _PARAMETERS:
            store[name] = host_value(getattr(self, name))
        store[_MULTIPLIER] = np.asarray(self._layer.learning_rate_multiplier, "float64")
        store[_ALIVE] = self.alive_host().astype("uint8")
        # A backend may hold these 32 bits in signed integers.
        store[_SEED] = host_value(self._seed_state).astype("uint32")

    def load(self, store: Any) -> None:
        """Reads what `save` wrote, also under another multiplier, and what it wrote in the past.

        Files without living units or a seed state are older: all units are
        there, and the noise goes on as it would have.
        """
        layer = self._layer
        found = set(store.keys())
        if found - {_ALIVE, _SEED} != {*_PARAMETERS, _MULTIPLIER}:
            raise ValueError(
                f"SBPLayer '{layer.name}' found the weights of something else in the file. "
                f"Expected: {', '.join(_PARAMETERS)} and {_MULTIPLIER}. "
                f"Received: {', '.join(sorted(found)) or 'nothing'}. "
                "Load the file into the architecture that wrote it."
            )
        raw = {name: np.asarray(store[name]) for name in _PARAMETERS}
        alive = np.asarray(store[_ALIVE]) if _ALIVE in found else np.ones(self.units)
        seed_state = np.asarray(store[_SEED]) if _SEED in found else None
        for name, values in {**raw, _ALIVE: alive}.items():
            if values.shape != (self.units,):
                raise ValueError(
                    f"SBPLayer '{layer.name}' has {self.units} units. Expected `{name}` of shape "
                    f"({self.units},) in the file. Received: shape {values.shape}. "
                    "Load the file into the architecture that wrote it."
                )
        if seed_state is not None and seed_state.shape != (2,):
            raise ValueError(
                f"SBPLayer '{layer.name}' found something else than the state of its noise. "
                f"Expected `{_SEED}` of shape (2,) in the file. Received: shape "
                f"{seed_state.shape}. Load the file into the architecture that wrote it."
            )
        written = float(np.asarray(store[_MULTIPLIER]))
        same = written == layer.learning_rate_multiplier
        for name, values in raw.items():
            # Rescaling by a ratio of 1 would be harmless; not touching the bits is certain.
            getattr(self, name).assign(
                values if same else values * (written / layer.learning_rate_multiplier)
            )
        self._assign_alive(alive > 0.5)
        if seed_state is not None:
            self._seed_state.assign(seed_state.astype(self._seed_state.dtype))

    @property
    def _seed_state(self) -> keras.Variable:
        return self._layer.seed_generator.state


@keras.saving.register_keras_serializable(package="keras_sbp")
class Between(keras.constraints.Constraint):
    """Projects a weight into an interval after each step of the optimizer.

    A clip in the forward pass would have gradient zero outside the interval,
    and a unit that got there could never come back. A projection leaves the
    gradient at the border alive.

    Args:
        low: Lower end of the interval, in units of the weight.
        high: Upper end of the interval, in units of the weight.
    """

    def __init__(self, low: float, high: float) -> None:
        self.low = low
        self.high = high

    def __call__(self, w: Any) -> Any:
        """Returns the nearest values inside the interval."""
        return ops.clip(w, self.low, self.high)

    def get_config(self) -> dict[str, float]:
        """Returns the constructor's arguments."""
        return {"low": self.low, "high": self.high}


def from_raw(raw: Any, multiplier: float) -> Any:
    """Returns the value of a raw tensor: `multiplier * raw`, with derivative 1."""
    return raw + ops.stop_gradient((multiplier - 1.0) * raw)


def raw_initializer(initializer: Callable, multiplier: float) -> Callable:
    """Returns an initializer of raw weights from one of values."""

    def initialize(shape: Sequence[int], dtype: Any = None) -> Any:
        return initializer(shape, dtype=dtype) / multiplier

    return initialize


def value_initializer(identifier: Any) -> Callable:
    """Returns a Keras initializer; a number means that constant."""
    if isinstance(identifier, Real) and not isinstance(identifier, bool):
        if not math.isfinite(identifier):
            raise ValueError(
                "SBPLayer cannot start from a value that is not finite. "
                f"Received: initializer={identifier!r}. Pass a finite number or an initializer."
            )
        return keras.initializers.Constant(float(identifier))
    return keras.initializers.get(identifier)


def host_value(variable: keras.Variable) -> np.ndarray:
    """Returns the value of a variable.

    Whoever is about to write a variable outside compiled functions should
    read it first: what is written while the trainer holds the value is lost.

    Raises:
        RuntimeError: If Keras's JAX trainer holds the value.
    """
    try:
        value = variable.value
    except TypeError as error:
        # Keras asks for the initializer that it no longer has.
        raise RuntimeError(
            f"The variable '{variable.path}' has no value now. Keras's JAX trainer takes the "
            "values of all variables with the first step of an epoch, and gives them back when the "
            "epoch ends. In a callback's batch hook, call self.model.jax_state_sync() before you "
            "read or write a gate. If a training step has raised an error, the values may be lost: "
            "build or load the model again."
        ) from error
    return ops.convert_to_numpy(value)
