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
    """Training of the network without gates: Adam, the rate falling along half a cosine.

    Here and in the other stages, `shift` moves each image by up to so many pixels, anew in each
    epoch, and `mirror` mirrors half of them.
    """

    epochs: int
    learning_rate: float = 1e-3
    shift: int = 0
    mirror: bool = False


@dataclasses.dataclass(frozen=True)
class Gated:
    """Training of the gated network from the dense one's weights.

    The rate stays for the first half and falls linearly to 0 over the second; Adam with a first
    moment of 0.95 (as in the paper). `frozen_norms` keeps BatchNormalization in inference mode,
    with its scale and shift as they are.
    """

    epochs: int
    kl_weight: Any = 1.0
    learning_rate: float = 1e-3
    warmup_epochs: int = 0
    frozen_norms: bool = False
    shift: int = 0
    mirror: bool = False


@dataclasses.dataclass(frozen=True)
class Prune:
    """What goes: a rule by its name in `rules`, and samples for reweighting (0: none).

    `budget` is the part of the multiply-accumulates that may remain; without it, the rule decides.
    A row without gates prunes the dense network.
    """

    rule: str = "snr"
    budget: float | None = None
    reweight: int = 0


@dataclasses.dataclass(frozen=True)
class Tune:
    """Training of the small network.

    `distil` is the part of the loss that compares with a dense network at a temperature: the row's
    own, or that of the row that `teacher` names.
    """

    epochs: int
    learning_rate: float = 1e-3
    distil: float = 0.0
    temperature: float = 4.0
    teacher: str | None = None
    shift: int = 0
    mirror: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table; those that need a GPU are only measured when they are named."""

    name: str
    title: str
    network: str
    dense: Dense
    gated: Gated | None = None
    prune: Prune | None = None
    tune: Tune | None = None
    data: str = "mnist"
    needs_gpu: bool = False

    def settings(self) -> dict[str, Any]:
        """Returns what results depend on: what the row's file says, defaults left out."""
        ignored = ("name", "title", "needs_gpu")
        return {name: value for name, value in _said(self).items() if name not in ignored}

    def key(self, stage: str) -> str:
        """Names the outcome of a stage by everything it depends on, so that rows share it."""
        said = self.settings()
        stages = ("dense", "gated", "prune", "tune")
        before = stages[: stages.index(stage) + 1]
        settings = {name: said.get(name) for name in ("data", "network", *before)}
        if stage == "tune" and self.tune and self.tune.teacher:
            settings["teacher"] = load(self.tune.teacher).key("dense")
        text = json.dumps(settings, sort_keys=True)
        return f"{stage}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def _said(part: Any) -> dict[str, Any]:
    """The fields that are not at their defaults, so that a new field forgets no results."""
    found = {}
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if value != field.default:
            found[field.name] = _said(value) if dataclasses.is_dataclass(value) else value
    return found


def load(name: str) -> Row:
    """Reads one row."""
    content = tomllib.loads((CONFIGS / f"{name}.toml").read_text())
    parts = {"dense": Dense, "gated": Gated, "prune": Prune, "tune": Tune}
    stages = {key: kind(**content.pop(key)) for key, kind in parts.items() if key in content}
    return Row(name=name, **content, **stages)


def names() -> list[str]:
    """Returns the names of all rows."""
    return sorted(path.stem for path in CONFIGS.glob("*.toml"))
