"""A gate in one line, for notebooks and debuggers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from keras_sbp.layers.sbp import SBPLayer


def one_line(gate: SBPLayer) -> str:
    """Returns what is to be said of a gate in whatever state it is.

    A `repr` is asked for in the middle of everything: before the gate is built, while it is
    traced, while JAX has its weights. Where the weights cannot be read, the rest is said.
    """
    said = [f"name={getattr(gate, 'name', None)}"]
    if not getattr(gate, "built", False):
        return ", ".join([*said, "not built"])
    try:
        said += _state(gate)
    except Exception:
        said.append(f"{gate.units} units")
    return ", ".join(said)


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
