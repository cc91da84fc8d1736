"""What the gates of a model say after an epoch: numbers, no rendering."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from keras_sbp.layers import SBPLayer


@dataclasses.dataclass(frozen=True)
class GateSummary:
    """The state of one gate, in NumPy float64.

    Attributes:
        name: Name of the gate, unique within the model.
        mu: Array of shape `(units,)`.
        log_sigma: Array of shape `(units,)`.
        snr: Array of shape `(units,)`.
        keep: Boolean array of shape `(units,)`, True for the units that stay.
        alive: Boolean array of shape `(units,)`, False for the frozen units.
        kl_loss: What the gate's KL adds to the loss, weighted.
        trains: Whether the gate was ever called with `training=True`.
    """

    name: str
    mu: np.ndarray
    log_sigma: np.ndarray
    snr: np.ndarray
    keep: np.ndarray
    alive: np.ndarray
    kl_loss: float
    trains: bool = True

    @property
    def units(self) -> int:
        """Number of units."""
        return self.keep.size

    @property
    def kept(self) -> int:
        """Number of units that stay."""
        return int(np.sum(self.keep))


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
        mu=posterior.mu,
        log_sigma=posterior.log_sigma,
        snr=gate.snr(),
        keep=gate.keep(),
        alive=gate.alive,
        kl_loss=gate.kl_loss(),
        trains=gate.called_in_training,
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
