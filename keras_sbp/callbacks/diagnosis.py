"""What goes wrong with gates in training, told once and plainly."""

from __future__ import annotations

import numpy as np

from keras_sbp.callbacks.epoch_summary import EpochSummary

# log sigma has to rise by about this much from its default start before a unit's SNR falls
# below 1.
_DISTANCE_TO_GO = 5.0
_EPOCHS_TO_JUDGE = 5


class Diagnosis:
    """Watches the summaries of one training run.

    Each method returns the messages that are due, each message once per run.

    Args:
        epochs: Number of epochs planned for this run, to extrapolate to.
        optimizer: Name of the optimizer, for the messages.
    """

    def __init__(self, epochs: int, optimizer: str) -> None:
        self._epochs = epochs
        self._optimizer = optimizer
        self._start: EpochSummary | None = None
        self._active_epochs = 0
        self._largest_data_loss = 0.0
        self._told: set[str] = set()

    def begin(self, summary: EpochSummary) -> None:
        """Takes the state that movement is measured from."""
        self._start = summary

    def after_epoch(self, summary: EpochSummary, loss: float | None) -> list[str]:
        """Returns the messages due after an epoch.

        Args:
            summary: State of the gates.
            loss: The epoch's training loss, None if unknown.
        """
        if self._start is None:
            self._start = summary
        if summary.kl_loss > 0:
            self._active_epochs += 1
        found = {
            "idle": _does_not_train(summary),
            "outweighs": self._kl_outweighs(summary, loss),
            "everything": _everything_goes(summary),
            "still": self._hardly_moves(summary),
        }
        return self._new(found)

    def at_end(self, summary: EpochSummary) -> list[str]:
        """Returns the messages due at the end of training."""
        if summary.kept < summary.units or self._told & {"still", "idle"}:
            return []
        return self._new({"nothing": self._nothing_goes(summary)})

    def _new(self, found: dict[str, str | None]) -> list[str]:
        due = {key: text for key, text in found.items() if text and key not in self._told}
        self._told.update(due)
        return list(due.values())

    def _moved(self, summary: EpochSummary) -> float:
        return max(
            float(np.max(np.abs(getattr(now, name) - getattr(then, name))))
            for now, then in zip(summary.gates, self._start.gates, strict=True)
            for name in ("mu", "log_sigma")
        )

    def _hardly_moves(self, summary: EpochSummary) -> str | None:
        if self._active_epochs < _EPOCHS_TO_JUDGE or summary.kept < summary.units:
            return None
        moved = self._moved(summary)
        if moved * self._epochs / self._active_epochs >= 0.2 * _DISTANCE_TO_GO:
            return None
        return (
            f"The gates hardly move: in {self._active_epochs} epochs no mu or log_sigma has moved "
            f"by more than {moved:.2g}, and log_sigma has to rise by about {_DISTANCE_TO_GO:.0f} "
            f"before a unit goes. {self._remedy()}"
        )

    def _remedy(self) -> str:
        return (
            "The KL gradient of a unit is only about kl_weight/num_samples, which plain SGD "
            "multiplies by the learning rate, while Adam normalises it. "
            f"This model trains with {self._optimizer}. Use keras.optimizers.Adam(1e-3), or a "
            "higher SBPLayer(learning_rate_multiplier=...), or train for more steps."
        )

    def _kl_outweighs(self, summary: EpochSummary, loss: float | None) -> str | None:
        if loss is None:
            return None
        data_loss = loss - summary.kl_loss
        # Late in a good run the data loss falls below the KL, and nothing is wrong. The yardstick
        # is therefore the largest data loss of the run, what there was to be learned.
        self._largest_data_loss = max(self._largest_data_loss, data_loss)
        if summary.kl_loss <= self._largest_data_loss:
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
            f"have moved by at most {self._moved(summary):.2g}, and log_sigma has to rise by about "
            f"{_DISTANCE_TO_GO:.0f} from its default start before a unit goes. {self._remedy()}"
        )


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
