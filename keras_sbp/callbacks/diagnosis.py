"""What goes wrong with gates in training, told once and plainly."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_sbp.callbacks.epoch_summary import EpochSummary
from keras_sbp.callbacks.outlook import out_of_reach, with_adam
from keras_sbp.callbacks.pace import Pace

_EPOCHS_TO_JUDGE = 5
# Gates that would not move by this much until the end hardly move.
_HARDLY = 1.0
# Below this part of what the optimizer could do, log_sigma has come to rest.
_AT_REST = 0.1
# What is said to be enough is more than it takes if things go on as they are. Where KL and data are
# in balance, the noise costs the data in proportion to sigma squared.
_MARGIN, _MARGIN_OF_WEIGHT = 2.0, 4.0


class Diagnosis:
    """Watches the summaries of one training run.

    Each method returns the messages that are due, each message once per run.

    Args:
        model: The model that trains.
        epochs: The epoch at which this run ends, as in `fit(epochs=...)`.
        steps: Training steps per epoch, None while they are not known.
    """

    def __init__(self, model: Any, epochs: int, steps: int | None) -> None:
        self._epochs = epochs
        self._pace = Pace(getattr(model, "optimizer", None), steps)
        self._own_step = _own_step(model)
        self._start: EpochSummary | None = None
        self._past = 0
        self._active_epochs = 0
        self._nearest: list[float] = []
        self._largest_data_loss = 0.0
        self._told: set[str] = set()
        self._looked_ahead = False

    def begin(self, summary: EpochSummary) -> None:
        """Takes the state that movement is measured from."""
        self._start = summary

    @property
    def looks_ahead(self) -> bool:
        """Whether it still has to be judged what the gates can reach."""
        return not self._looked_ahead

    def before_epoch(self, epoch: int, summary: EpochSummary) -> list[str]:
        """Returns the messages due before the first step of an epoch, counted from 0."""
        self._past = epoch
        return self._new({"reach": self._out_of_reach(summary)})

    def after_epoch(self, summary: EpochSummary, loss: float | None, steps: int) -> list[str]:
        """Returns the messages due after an epoch.

        Args:
            summary: State of the gates.
            loss: The epoch's training loss, None if unknown.
            steps: Steps that the epoch had.
        """
        if self._start is None:
            self._start = summary
        if not self._nearest:
            self._nearest.append(_nearest(self._start))
        self._pace.steps = steps
        if summary.kl_loss > 0:
            self._active_epochs += 1
            self._nearest.append(_nearest(summary))
        found = {
            "idle": _does_not_train(summary),
            "left out": self._kl_left_out(summary, loss),
            "outweighs": self._kl_outweighs(summary, loss),
            "everything": _everything_goes(summary),
            "reach": self._out_of_reach(summary),
            "still": self._hardly_moves(summary) if "reach" not in self._told else None,
        }
        self._past += 1
        return self._new(found)

    def at_end(self, summary: EpochSummary) -> list[str]:
        """Returns the messages due at the end of training."""
        if summary.kept < summary.units or self._told & {"still", "idle", "reach", "left out"}:
            return []
        return self._new({"nothing": self._nothing_goes(summary)})

    def _new(self, found: dict[str, str | None]) -> list[str]:
        due = {key: text for key, text in found.items() if text and key not in self._told}
        self._told.update(due)
        return list(due.values())

    def _out_of_reach(self, summary: EpochSummary) -> str | None:
        """What can be reached, judged once: as soon as the KL counts and its size is known."""
        active = any(gate.kl_weight * gate.kl_factor > 0 for gate in summary.gates)
        known = self._pace.steps and (self._pace.normalises or summary.kl_loss > 0)
        if self._looked_ahead or not (active and known):
            return None
        self._looked_ahead = True
        return out_of_reach(summary.gates, self._pace, self._past, self._epochs - self._past)

    def _kl_has_risen(self, summary: EpochSummary) -> bool:
        return self._start is not None and summary.kl > self._start.kl

    def _moved(self, summary: EpochSummary) -> float:
        start = self._start or summary
        return max(
            float(np.max(np.abs(getattr(now.posterior, name) - getattr(then.posterior, name))))
            for now, then in zip(summary.gates, start.gates, strict=True)
            for name in ("mu", "log_sigma")
        )

    def _hardly_moves(self, summary: EpochSummary) -> str | None:
        warms_up = any(gate.kl_factor < 1 for gate in summary.gates)
        if self._active_epochs < _EPOCHS_TO_JUDGE or summary.kept < summary.units or warms_up:
            return None
        to_come = self._epochs - self._past - 1
        moved = self._moved(summary)
        if moved * (1 + to_come / self._active_epochs) >= _HARDLY:
            return None
        return (
            f"The gates hardly move: in {self._active_epochs} epochs no mu or log_sigma has moved "
            f"by more than {moved:.2g}, and log_sigma has to rise by {_distance(summary)} before a "
            f"unit goes. {self._remedy(summary)}"
        )

    def _remedy(self, summary: EpochSummary) -> str:
        """What would make units go, as far as it shows in how the gates have moved."""
        if self._own_step and self._kl_has_risen(summary):
            return (
                f"The KL has risen, as if it were not in the loss. {self._own_step} has a "
                f"train_step or compute_loss of its own: see that it adds it. {_ADD_LOSSES}"
            )
        if self._pace.normalises is False:
            return with_adam(summary.gates, self._pace, self._epochs)
        left = min(gate.distance_to_go for gate in summary.gates)
        if math.isinf(left):
            return "The rules are far from removing anything: use another rule, or raise kl_weight."
        speed = self._speed()
        if speed <= self._slowest(summary):
            weight = max(gate.kl_weight for gate in summary.gates)
            return (
                "The KL has come to rest: the data resist it, and more steps would change little. "
                "Raise SBPLayer(kl_weight=...), for example to "
                f"{_MARGIN_OF_WEIGHT * weight * math.exp(2 * left):.2g}."
            )
        epochs = self._past + math.ceil(_MARGIN * left / speed)
        return (
            f"The noise is still growing, so give it more steps: fit(epochs={epochs}), or a higher "
            "SBPLayer(learning_rate_multiplier=...)."
        )

    def _speed(self) -> float:
        """By how much per epoch the unit that is nearest to going has come nearer lately."""
        lately = max(1, self._active_epochs // 4)
        return (self._nearest[-1 - lately] - self._nearest[-1]) / lately

    def _slowest(self, summary: EpochSummary) -> float:
        """The speed at or below which the noise does not grow any more."""
        if self._pace.normalises:
            multiplier = max(gate.multiplier for gate in summary.gates)
            return _AT_REST * multiplier * self._pace.reach(1)
        return max(0.0, -_AT_REST * float(np.min(np.diff(self._nearest))))

    def _kl_left_out(self, summary: EpochSummary, loss: float | None) -> str | None:
        """A step that is not Keras's, a loss without room for the KL, and gates that feel none."""
        if not self._own_step or loss is None or self._active_epochs < 2:
            return None
        if loss >= summary.kl_loss or not self._kl_has_risen(summary):
            return None
        return (
            f"The KL does not reach the loss: that is {loss:.3g}, less than the "
            f"{summary.kl_loss:.3g} that the KL would add, and the KL has only risen so far. "
            f"{self._own_step} has a train_step or compute_loss of its own, which leaves out what "
            f"layers add to the loss; `sbp_kl` is no part of it either. {_ADD_LOSSES}"
        )

    def _kl_outweighs(self, summary: EpochSummary, loss: float | None) -> str | None:
        if loss is None:
            return None
        data_loss = loss - summary.kl_loss
        # Late in a good run the data loss falls below the KL, and nothing is wrong. The yardstick
        # is therefore the largest data loss of the run, what there was to be learned.
        self._largest_data_loss = max(self._largest_data_loss, data_loss)
        # A negative one is the logarithm of a density, which has no yardstick, or a loss that a
        # train_step of the user's own logs without the KL.
        if data_loss < 0 or summary.kl_loss <= self._largest_data_loss:
            return None
        return (
            f"The KL outweighs the data: it adds {summary.kl_loss:.3g} to the loss, the data loss "
            f"is {data_loss:.3g}. If the network loses accuracy, bring the KL in slowly with "
            "keras_sbp.KLWarmup(epochs), lower SBPLayer(kl_weight=...), and check num_samples. In "
            "a network that was trained before it was gated, this may be harmless."
        )

    def _nothing_goes(self, summary: EpochSummary) -> str:
        if not self._active_epochs:
            return (
                "Nothing will be pruned: the KL had weight 0 throughout. Its weight comes from "
                "SBPLayer(num_samples=...), or from the steps per epoch, which are known only "
                "after an epoch if the data has no length. Pass num_samples, or "
                "fit(steps_per_epoch=...), and check kl_weight and KLWarmup."
            )
        return (
            f"Nothing will be pruned: the rules keep all {summary.units} units. mu and log_sigma "
            f"have moved by at most {self._moved(summary):.2g}, and log_sigma has yet to rise by "
            f"{_distance(summary)} before a unit goes. {self._remedy(summary)}"
        )


_ADD_LOSSES = (
    "Take the loss from self.compute_loss(x, y, y_pred), or add sum(self.losses) to yours. With "
    "JAX, call self.stateless_call(..., return_losses=True) and add the sum of what it returns."
)


def _own_step(model: Any) -> str | None:
    """The name of a class that takes its own training steps, or None."""
    names = ("train_step", "compute_loss", "compute_loss_and_updates")
    own = any(getattr(type(model), n, None) is not getattr(keras.Model, n, None) for n in names)
    return type(model).__name__ if own else None


def _nearest(summary: EpochSummary) -> float:
    """The logarithm of the lowest SNR; it falls as fast as log_sigma rises."""
    snr = np.concatenate([gate.snr[gate.alive] for gate in summary.gates])
    with np.errstate(divide="ignore"):
        return float(np.log(np.min(snr, initial=np.inf)))


def _distance(summary: EpochSummary) -> str:
    distance = min(gate.distance_to_go for gate in summary.gates)
    return "far" if math.isinf(distance) else f"about {distance:.3g}"


def _does_not_train(summary: EpochSummary) -> str | None:
    idle = [gate.name for gate in summary.gates if not gate.trains]
    if not idle:
        return None
    return (
        f"{_gates(idle)} never called with training=True, so nothing is learned there and no KL is "
        "added. Keras tells only models that ask, and with JAX not the layers inside: give the "
        "call() of a subclassed model or layer the argument `training=False`, and pass it on to "
        "the gate."
    )


def _gates(names: list[str]) -> str:
    listed = ", ".join(f"'{name}'" for name in names)
    return f"Gate {listed} was" if len(names) == 1 else f"Gates {listed} were"


def _everything_goes(summary: EpochSummary) -> str | None:
    # A gate with a single unit holds a whole branch, and a branch may well go.
    empty = [gate.name for gate in summary.gates if gate.kept == 0 and gate.units > 1]
    if summary.kept == 0:
        empty = [gate.name for gate in summary.gates]
    if not empty:
        return None
    names = ", ".join(f"'{name}'" for name in empty)
    return (
        f"Everything is about to be pruned at {names}: the rule keeps no unit there, so what "
        "follows sees a constant. The KL is too strong, or its start too "
        "abrupt: lower SBPLayer(kl_weight=...), use keras_sbp.KLWarmup(epochs), or stop earlier."
    )
