"""What `compress` did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from keras_sbp.printing import Printable, fewer
from keras_sbp.pruning.report import PruneReport


@dataclass(frozen=True)
class CompressReport(Printable):
    """The outcome of `compress`.

    Attributes:
        pruned: The `PruneReport` of the network when its gates went: units, weights,
            multiply-accumulates of each layer, and why units stay.
        before: Loss and metrics of the given model on the validation data; empty without such
            data.
        after: The same of the small model, after its last epoch.
        history: Loss, metrics and what the callbacks log, one number for each epoch; of all
            epochs, those with gates first.
        gated_epochs: Number of epochs with gates.
        epochs: Number of all epochs.
        seconds: Wall time, without the epochs before an interruption.
    """

    pruned: PruneReport
    before: dict[str, float]
    after: dict[str, float]
    history: dict[str, list[float]]
    gated_epochs: int
    epochs: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Returns all figures as plain lists, dicts and numbers, ready for JSON."""
        return {
            "pruned": self.pruned.to_dict(),
            "before": self.before,
            "after": self.after,
            "history": self.history,
            "gated_epochs": self.gated_epochs,
            "epochs": self.epochs,
            "seconds": self.seconds,
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(str(self))
        yield from self.pruned.__rich_console__(console, options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"

    def __str__(self) -> str:
        macs = fewer(self.pruned.macs_before, self.pruned.macs_after, "MACs")
        said = [f"{macs} after {self.epochs} epochs, {self.gated_epochs} of them with gates"]
        said += [
            f"{name} {value:.4g} → {self.after[name]:.4g}"
            for name, value in self.before.items()
            if name in self.after
        ]
        if not self.before:
            said.append("accuracy not measured: pass validation_data")
        return ", ".join(said)
