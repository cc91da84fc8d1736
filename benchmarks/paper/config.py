"""One row of the table: a TOML file in configs/."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import tomllib
from typing import Any

CONFIGS = pathlib.Path(__file__).parent / "configs"


@dataclasses.dataclass(frozen=True)
class Dense:
    """Training of the network without gates: Adam, the rate falling along half a cosine."""

    epochs: int
    learning_rate: float = 1e-3


@dataclasses.dataclass(frozen=True)
class Gated:
    """Training of the gated network from the dense one's weights.

    The rate stays for the first half and falls linearly to 0 over the second; Adam with a first
    moment of 0.95 (as in the paper).
    """

    epochs: int
    kl_weight: Any = 1.0
    learning_rate: float = 1e-3
    warmup_epochs: int = 0


@dataclasses.dataclass(frozen=True)
class Prune:
    """What goes: a rule of posteriors, and samples for reweighting (0: none).

    `budget` is the part of the multiply-accumulates that may remain; without it, the rule decides.
    """

    rule: str = "snr"
    budget: float | None = None
    reweight: int = 0


@dataclasses.dataclass(frozen=True)
class Tune:
    """Training of the small network.

    `distil` is the part of the loss that compares with a dense network at a temperature: the one
    that was pruned, or `teacher`, another network trained alike. `shift` moves the images by up to
    so many pixels.
    """

    epochs: int
    learning_rate: float = 1e-3
    distil: float = 0.0
    temperature: float = 4.0
    shift: int = 0
    teacher: str | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table."""

    name: str
    title: str
    network: str
    dense: Dense
    gated: Gated | None = None
    prune: Prune | None = None
    tune: Tune | None = None

    def key(self, stage: str) -> str:
        """Names the outcome of a stage by everything it depends on, so that rows share it."""
        settings: dict[str, Any] = {"network": self.network}
        for name in ("dense", "gated", "prune", "tune"):
            part = getattr(self, name)
            settings[name] = part and dataclasses.asdict(part)
            if name == stage:
                break
        text = json.dumps(settings, sort_keys=True)
        return f"{stage}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def load(name: str) -> Row:
    """Reads one row."""
    content = tomllib.loads((CONFIGS / f"{name}.toml").read_text())
    parts = {"dense": Dense, "gated": Gated, "prune": Prune, "tune": Tune}
    stages = {key: kind(**content.pop(key)) for key, kind in parts.items() if key in content}
    return Row(name=name, **content, **stages)


def names() -> list[str]:
    """Returns the names of all rows."""
    return sorted(path.stem for path in CONFIGS.glob("*.toml"))
