"""The gate layer."""

from __future__ import annotations

from typing import Any, final

import keras
import numpy as np
from keras import ops

from keras_sbp._arguments import check_number
from keras_sbp.distributions import TruncatedLogNormal
from keras_sbp.layers import arguments
from keras_sbp.layers._axis import broadcast_shape, check_axis, count_units
from keras_sbp.layers._kl_weighting import KLWeighting
from keras_sbp.layers._posterior_weights import StoredPosterior, value_initializer
from keras_sbp.layers.deciding import check_decision, decision_for
from keras_sbp.rules import PosteriorRule, SNRThreshold


@final
@keras.saving.register_keras_serializable(package="keras_sbp")
class SBPLayer(keras.layers.Layer):
    """Multiplies each unit by a noise variable that learns whether the unit is needed.

    The layer holds one gate per unit: a random factor theta with a truncated
    log-normal posterior. In training it draws theta for every example and
    unit and adds the KL divergence from the log-uniform prior to the loss. At
    inference it multiplies by `keep * E[theta]`, where `keep` comes from the
    rule: `evaluate()` shows what the pruned network will score. Units that
    `freeze()` has removed are 0 in training too, and stay so.

    Put it right behind the last unit-wise operation (normalisation,
    activation) of the layer whose units it gates, before the value branches.
    One layer object used at several places is one gate shared there, with one
    KL; each place draws noise of its own.

    Reference:
        Neklyudov et al. (2017), Structured Bayesian Pruning via Log-Normal
        Multiplicative Noise (https://arxiv.org/abs/1705.07283), section 3.

    Args:
        axis: Integer, the axis along which the units lie, negative counted
            from the end; or `None` for one gate over the whole tensor.
        num_samples: Number of training examples N that the KL is divided by.
            `None` leaves it to `SNRMonitor`, which tells the gate the steps
            per epoch.
        kl_weight: Factor on the KL, 0 or greater. 1 is the evidence lower
            bound.
        rule: A `keras_sbp.rules.PosteriorRule` that decides which units stay.
            `None` means `SNRThreshold(1.0)`.
        log_low: Lower end of the interval that log theta is truncated to.
        log_high: Upper end of that interval.
        noise: `"example"` draws theta per example and unit, `"batch"` per
            step and unit. Both share it over the other axes.
        learning_rate_multiplier: How many times faster mu and log sigma learn
            than other weights, with any optimizer.
        mu_initializer: Initializer of mu, or a number.
        log_sigma_initializer: Initializer of log sigma, or a number.
        seed: Integer seed of the noise.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        Any, with a known size along `axis`; axis 0 is the batch.

    Output shape:
        That of the input.

    Attributes:
        mu: Weight of shape `(units,)` with mu *divided by* the learning rate
            multiplier; read `posterior`, write `set_posterior()`.
        log_sigma: The same for log sigma.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((20,)),
    ...     keras.layers.Dense(64, activation="relu"),
    ...     keras_sbp.SBPLayer(),
    ...     keras.layers.Dense(1),
    ... ])
    >>> model.compile("adam", "mse")
    >>> history = model.fit(x, y, callbacks=[keras_sbp.SNRMonitor()])
    """

    def __init__(
        self,
        axis: int | None = -1,
        *,
        num_samples: float | None = None,
        kl_weight: float = 1.0,
        rule: PosteriorRule | None = None,
        log_low: float = -20.0,
        log_high: float = 0.0,
        noise: str = "example",
        learning_rate_multiplier: float = 10.0,
        mu_initializer: Any = "zeros",
        log_sigma_initializer: Any = -5.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis = check_axis(axis)
        self.num_samples = arguments.check_num_samples(num_samples)
        self.kl_weight = arguments.check_kl_weight(kl_weight)
        self.rule = arguments.check_rule(SNRThreshold() if rule is None else rule)
        self.log_low, self.log_high = arguments.check_log_bounds(log_low, log_high)
        self.noise = arguments.check_noise(noise)
        self.learning_rate_multiplier = check_number(
            "SBPLayer", "learning_rate_multiplier", learning_rate_multiplier, positive=True
        )
        self.mu_initializer = value_initializer(mu_initializer)
        self.log_sigma_initializer = value_initializer(log_sigma_initializer)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True
        # Created here, so that callbacks can write before a lazy model is built.
        self.kl_weighting = KLWeighting(self, self._gate_dtype)

    @property
    def kl_factor(self) -> keras.Variable:
        """Scalar variable that multiplies the KL: 1, unless `KLWarmup` writes it."""
        return self.kl_weighting.factor

    @property
    def called_in_training(self) -> bool:
        """Whether this layer object was ever called, or traced, with `training=True`."""
        return self.kl_weighting.used

    @property
    def units(self) -> int:
        """The number of units. It is asked of a built layer; of others it is a ValueError."""
        return self._require_built().units

    @property
    def posterior(self) -> TruncatedLogNormal:
        """The posterior of the units, in NumPy float64.

        Raises:
            ValueError: If the layer is not built.
        """
        return self._require_built().host()

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights for the units that `input_shape` has along the axis."""
        units = count_units(self.axis, input_shape, self.name)
        if self.axis is not None:
            self.input_spec = keras.layers.InputSpec(axes={self.axis: units})
        self._stored = StoredPosterior(self, units, self._gate_dtype)
        self.mu, self.log_sigma = self._stored.mu, self._stored.log_sigma
        self.built = True

    @property
    def _gate_dtype(self) -> str:
        return "float64" if self.variable_dtype == "float64" else "float32"

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Returns `inputs * theta` in training, `inputs * keep * E[theta]` otherwise.

        Args:
            inputs: Tensor with a batch axis first.
            training: Whether to draw theta and to add the KL to the losses.

        Raises:
            RuntimeError: If it is called for training with neither
                `num_samples` nor a callback that sets the steps per epoch.
        """
        posterior = self._stored.tensor()
        if training:
            self._add_kl(inputs, posterior)
            scale = self._draw_noise(inputs, posterior)
        else:
            scale = self._expected_scale(inputs, posterior)
        outputs = ops.cast(inputs, self._gate_dtype) * scale
        return ops.cast(outputs, self.compute_dtype)

    def _add_kl(self, inputs: Any, posterior: TruncatedLogNormal) -> None:
        # Keras clears the losses when a model is called. One that is there now was added by
        # this gate at another place of the same forward pass, and theta has one KL only.
        if not self.losses:
            kl = self._only_alive(posterior.kl_to_log_uniform())
            loss = self.kl_weighting.tensor(inputs) * ops.sum(kl)
            # Keras computes the data loss in floatx, whatever the policy, and adds like to like.
            self.add_loss(ops.cast(loss, keras.config.floatx()))

    def _draw_noise(self, inputs: Any, posterior: TruncatedLogNormal) -> Any:
        draws = ops.shape(inputs)[0] if self.noise == "example" else 1
        theta = self._only_alive(posterior.sample((draws, self.units), self.seed_generator))
        return self._align(theta, inputs, leading=-1)

    def _expected_scale(self, inputs: Any, posterior: TruncatedLogNormal) -> Any:
        keep = decision_for(self)
        keep = self.rule.keep(posterior) if keep is None else ops.convert_to_tensor(keep)
        mean = posterior.mean()
        mean = self._only_alive(ops.where(keep, mean, ops.zeros_like(mean)))
        return self._align(mean, inputs, leading=1)

    def _only_alive(self, values: Any) -> Any:
        """Returns the values, with 0 for the units that are frozen."""
        return ops.where(self._stored.alive_tensor(), values, ops.zeros_like(values))

    def _align(self, values: Any, inputs: Any, leading: int) -> Any:
        rank = len(inputs.shape)
        return ops.reshape(values, broadcast_shape(self.axis, rank, self.units, leading))

    def snr(self) -> np.ndarray:
        """Returns the SNR of each unit, float64 of shape `(units,)`."""
        return self.posterior.snr()

    def keep(self) -> np.ndarray:
        """Returns which units stay, boolean of shape `(units,)`.

        Those are the units that the rule keeps and that are not frozen.
        """
        return np.asarray(self.rule.keep(self.posterior)) & self.alive

    @property
    def alive(self) -> np.ndarray:
        """Which units `freeze()` has left, boolean of shape `(units,)`.

        Raises:
            ValueError: If the layer is not built.
        """
        return self._require_built().alive_host()

    def freeze(self, keep: Any = None) -> None:
        """Removes units for good, in training and at inference.

        The output of a frozen unit is exactly 0. It draws no noise, has no KL
        and gets no gradient, and no rule brings it back. `prune()` deletes
        it. The weights hold which units are frozen, so files and checkpoints
        do too. `unfreeze()` takes everything back.

        Args:
            keep: Boolean array of shape `(units,)`, False for the units to
                remove. Units that are frozen stay so, whatever it says.
                `None` means what `keep()` says now.

        Raises:
            ValueError: If the layer is not built, or `keep` does not have one
                boolean per unit.
        """
        alive = self.alive
        keep = self.keep() if keep is None else check_decision(self, keep)
        self._stored.write_alive(alive & keep)

    def unfreeze(self) -> None:
        """Brings all frozen units back, with the posteriors that they went with.

        Raises:
            ValueError: If the layer is not built.
        """
        self._require_built().write_alive(np.ones(self.units, bool))

    def kl(self) -> float:
        """Returns the KL divergence from the prior in nats, summed over the units not frozen."""
        return float(np.sum(self.posterior.kl_to_log_uniform()[self.alive]))

    def kl_loss(self) -> float:
        """Returns what the KL adds to the loss: `kl_weight * kl_factor * KL / num_samples`.

        Where `SNRMonitor` gives the number of samples, that is the number of examples times the
        number of positions that the loss averages over.

        It is 0 as long as the number of samples is not known.
        """
        return self.kl_weighting.value() * self.kl()

    def set_posterior(self, mu: Any, log_sigma: Any) -> None:
        """Writes the parameters of the posterior.

        Args:
            mu: Mean of log theta before truncation, a number or an array of
                shape `(units,)`.
            log_sigma: Log of its standard deviation, likewise.

        Raises:
            ValueError: If the layer is not built, or the values are not finite
                or have another shape.
        """
        self._require_built().write(mu, log_sigma)

    def set_steps_per_epoch(self, steps: int | None, replicas: int = 1) -> None:
        """Tells the gate how many steps an epoch has, for gates without `num_samples`.

        In a loop of your own, call it once before the first step, and again
        when the data or the batch size changes. `fit()` with `SNRMonitor`
        finds out by itself, and leaves behind what you have said here.

        Args:
            steps: Training steps per epoch. `None` means unknown: the KL has
                weight 0 until it is known.
            replicas: Number of replicas that share a step, each with a batch
                of its own.

        Raises:
            ValueError: If one of them is not a positive integer.
        """
        self.kl_weighting.set_steps_per_epoch(steps, replicas)

    def check_posterior(self) -> None:
        """Raises a ValueError if mu or log sigma of any unit is NaN or infinite."""
        bad = self._require_built().count_bad_units()
        if bad:
            raise ValueError(
                f"SBPLayer '{self.name}' has NaN or Inf in mu or log_sigma of {bad} of its "
                f"{self.units} units. Expected finite values. Look for a diverged loss (lower "
                "the learning rate or the learning_rate_multiplier, clip gradients), or load an "
                "earlier checkpoint."
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(_said(self))}>"

    def _require_built(self) -> StoredPosterior:
        if not self.built:
            raise ValueError(
                f"SBPLayer '{self.name}' has no posterior yet, because it is not built. "
                "Call the model on a batch, or model.build(input_shape), first."
            )
        return self._stored

    def save_own_variables(self, store: Any) -> None:
        """Saves the posterior, which units are frozen, and where the noise has got to."""
        if self.built:
            self._stored.save(store)

    def load_own_variables(self, store: Any) -> None:
        """Loads what was saved, also under another multiplier, or by an earlier version."""
        self._require_built().load(store)

    def rematerialized_call(self, layer_call: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the call as it is: a gate is not recomputed.

        In a `keras.RematScope` a second call would draw other noise, count the
        batch twice, and find its KL in the losses already. That holds for a
        gate inside a layer or model that is recomputed, too: make only its
        neighbours in the scope.
        """
        return layer_call

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple:
        """Returns `input_shape`."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, JSON-serialisable."""
        config = {
            "axis": self.axis,
            "num_samples": self.num_samples,
            "kl_weight": self.kl_weight,
            "rule": keras.saving.serialize_keras_object(self.rule),
            "log_low": self.log_low,
            "log_high": self.log_high,
            "noise": self.noise,
            "learning_rate_multiplier": self.learning_rate_multiplier,
            "mu_initializer": keras.initializers.serialize(self.mu_initializer),
            "log_sigma_initializer": keras.initializers.serialize(self.log_sigma_initializer),
            "seed": self.seed,
        }
        return {**super().get_config(), **config}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SBPLayer:
        """Returns the layer that `get_config()` described."""
        config = dict(config)
        if isinstance(config.get("rule"), dict):
            config["rule"] = keras.saving.deserialize_keras_object(config["rule"])
        return super().from_config(config)


def _said(gate: SBPLayer) -> list[str]:
    """Returns what is to be said of a gate in whatever state it is.

    A `repr` is asked for in the middle of everything: before the gate is built, while it is
    traced, while JAX has its weights. Where the weights cannot be read, the rest is said.
    """
    name = f"name={getattr(gate, 'name', None)}"
    if not getattr(gate, "built", False):
        return [name, "not built"]
    try:
        return [name, *_state(gate)]
    except Exception:
        return [name, f"{gate.units} units"]


def _state(gate: SBPLayer) -> list[str]:
    posterior, alive = gate.posterior, gate.alive
    bad = int(np.sum(~(np.isfinite(posterior.mu) & np.isfinite(posterior.log_sigma))))
    if bad:
        return [f"{gate.units} units", f"NaN or Inf in {bad} of them"]
    frozen = int(np.sum(~alive))
    return [
        f"keeps {int(gate.keep().sum())} of {gate.units} units",
        *([f"{frozen} frozen"] if frozen else []),
        f"median SNR {np.median(posterior.snr()):.3g}",
    ]
