"""What the gates of a model say after an epoch: numbers, no rendering."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence

import numpy as np
from keras import ops

from keras_sbp.distributions import TruncatedLogNormal
from keras_sbp.layers import SBPLayer
from keras_sbp.rules import PosteriorRule

# How finely, and how far, a gate's way to losing a unit is looked at.
_STEP, _FARTHEST = 0.25, 25.0


@dataclasses.dataclass(frozen=True)
class GateSummary:
    """The state of one gate, in NumPy float64.

    Attributes:
        name: Name of the gate, unique within the model.
        posterior: The posterior of the units.
        rule: The gate's rule.
        snr: Array of shape `(units,)`.
        keep: Boolean array of shape `(units,)`, True for the units that stay.
        alive: Boolean array of shape `(units,)`, False for the frozen units.
        kl_loss: What the gate's KL adds to the loss, weighted.
        trains: Whether the gate was ever called with `training=True`.
        trainable: Whether the optimizer may move the posterior.
        kl_weight: The gate's factor on the KL.
        kl_factor: What a warm-up multiplies it by now.
        multiplier: The gate's `learning_rate_multiplier`.
    """

    name: str
    posterior: TruncatedLogNormal
    rule: PosteriorRule
    snr: np.ndarray
    keep: np.ndarray
    alive: np.ndarray
    kl_loss: float
    trains: bool = True
    trainable: bool = True
    kl_weight: float = 1.0
    kl_factor: float = 1.0
    multiplier: float = 10.0

    @property
    def units(self) -> int:
        """Number of units."""
        return self.keep.size

    @property
    def kept(self) -> int:
        """Number of units that stay."""
        return int(np.sum(self.keep))

    @property
    def kl(self) -> float:
        """The KL in nats, over the units that are not frozen."""
        return float(np.sum(self.posterior.kl_to_log_uniform()[self.alive]))

    @functools.cached_property
    def distance_to_go(self) -> float:
        """By how much log_sigma has to rise before the rule drops some unit.

        If mu falls as fast beside it, or not at all, whichever is nearer. Infinite where it is far.
        """
        values = np.stack([self.posterior.mu, self.posterior.log_sigma])
        mu, log_sigma = np.unique(values[:, self.alive], axis=1)
        for distance in np.arange(0.0, _FARTHEST, _STEP):
            for falling in (0.0, distance):
                there = dataclasses.replace(
                    self.posterior, mu=mu - falling, log_sigma=log_sigma + distance
                )
                if not np.all(self.rule.keep(there)):
                    return float(distance)
        return math.inf


@dataclasses.dataclass(frozen=True)
class EpochSummary:
    """The state of all gates of a model."""

    gates: tuple[GateSummary, ...]

    @property
    def units(self) -> int:
        """Number of units over all gates."""
        return sum(gate.units for gate in self.gates)

    @property
    def kept(self) -> int:
        """Number of units that stay, over all gates."""
        return sum(gate.kept for gate in self.gates)

    @property
    def sparsity(self) -> float:
        """Fraction of the units that go."""
        return 1.0 - self.kept / self.units

    @property
    def kl_loss(self) -> float:
        """What all KL terms together add to the loss, weighted."""
        return float(sum(gate.kl_loss for gate in self.gates))

    @property
    def kl(self) -> float:
        """The KL in nats, over the units of all gates that are not frozen."""
        return sum(gate.kl for gate in self.gates)

    def snr_quantiles(self, quantiles: Sequence[float]) -> list[float]:
        """Returns quantiles of the SNR over the units of all gates, but for the frozen ones.

        NaN where every unit is frozen.
        """
        snr = np.concatenate([gate.snr[gate.alive] for gate in self.gates])
        if not snr.size:
            return [float("nan")] * len(quantiles)
        # No interpolation: between two infinite SNRs it would give NaN.
        return [float(np.quantile(snr, q, method="nearest")) for q in quantiles]


def summarise(gates: Sequence[SBPLayer]) -> EpochSummary:
    """Returns the state of built gates."""
    names = unique_names(gate.name for gate in gates)
    return EpochSummary(
        tuple(_summarise_gate(gate, name) for gate, name in zip(gates, names, strict=True))
    )


def _summarise_gate(gate: SBPLayer, name: str) -> GateSummary:
    posterior = gate.posterior
    return GateSummary(
        name=name,
        posterior=posterior,
        rule=gate.rule,
        snr=gate.snr(),
        keep=gate.keep(),
        alive=gate.alive,
        kl_loss=gate.kl_loss(),
        trains=gate.called_in_training,
        trainable=gate.trainable,
        kl_weight=gate.kl_weight,
        kl_factor=float(ops.convert_to_numpy(gate.kl_factor.value)),
        multiplier=gate.learning_rate_multiplier,
    )


def unique_names(names: Iterable[str]) -> list[str]:
    """Returns the names, numbered where nested models use one twice."""
    result: list[str] = []
    for name in names:
        candidate, number = name, 2
        while candidate in result:
            candidate, number = f"{name}_{number}", number + 1
        result.append(candidate)
    return result
