"""The callback that feeds the gates, and tells what they say."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import keras

from keras_sbp._arguments import check_count
from keras_sbp._optimizers import leave_out_of_weight_decay
from keras_sbp.callbacks.diagnosis import Diagnosis
from keras_sbp.callbacks.epoch_summary import EpochSummary, summarise
from keras_sbp.callbacks.loss_values import LossValues, loss_values
from keras_sbp.callbacks.train_function import guarded
from keras_sbp.layers import SBPLayer, find_gates
from keras_sbp.telling import warn

_logger = logging.getLogger("keras_sbp")
_GATES_IN_LINE = 6


class SNRMonitor(keras.callbacks.Callback):
    """Tells gates the size of the data, and tells you what they would prune.

    When training begins, it tells the steps per epoch to every gate without
    `num_samples`, so that the KL gets its weight, and takes them back when it
    ends. If the data has no known length, the first epoch runs with KL weight
    0 and is counted. It also excludes the gates from the optimizer's weight
    decay, which would turn every unit into noise; they have to be built when
    training begins.

    After each epoch it adds to `logs`:

    - `sbp_kept`: units that stay, over all gates; and `sbp_kept_<gate>` each.
    - `sbp_sparsity`: fraction of the units that go.
    - `sbp_kl`: what the KL adds to the training loss, that is, the sum over
      gates of `kl_weight * kl_factor * KL / num_samples`, at the end of the
      epoch.
    - `sbp_snr_p5`, `sbp_snr_p50`, `sbp_snr_p95`: quantiles of the SNR over the
      units of all gates, but for those that are frozen.

    What it calls kept is what `prune()` keeps with the gates' own rules.
    Callbacks see these entries if they stand after this one in the list:
    History and the progress bar always do, but the bar leaves out
    `sbp_kept_<gate>`; list `CSVLogger`, `EarlyStopping`, `TensorBoard` and the
    like after the monitor. (`EarlyStopping` and `ModelCheckpoint` need their
    `mode` for these names.)

    A line per epoch goes where the progress bar goes: to the standard output,
    or, with Keras's interactive logging disabled, to the logger `"keras_sbp"`
    at level INFO. The line of an epoch appears when the progress bar has
    finished its own, that is, when the next epoch begins or training ends.

    It warns, each at most once per run, when a gate is never called for
    training, when the steps to come cannot bring any unit to go (before the
    first of them, where that can be known), when the gates hardly move, when
    everything at a gate is about to be pruned, when the KL outweighs the
    largest data loss of the run, when a `train_step` of your own leaves the KL
    out of the loss, and when nothing is pruned at the end. It says what would
    be enough.

    With `prune_every=n` it prunes while the network trains: after every n-th
    epoch, what the gates' rules remove is removed for good
    (`SBPLayer.freeze()`), and the rest of the training adapts to it. A gate of
    several units whose rule keeps none is left alone, and the warning comes.
    Checkpoints hold which units are frozen; callbacks that write them should
    stand after this one.

    Args:
        verbose: `"auto"` follows the `verbose` of `fit()`; 0 writes no lines,
            1 writes them.
        quantiles: Floats from 0 to 1, the quantiles of the SNR to log.
        prefix: What the names of the entries in `logs` begin with.
        prune_every: Positive integer, epochs from one freezing to the next,
            counted from epoch 0 also in a resumed training. `None` freezes
            nothing.

    Attributes:
        history: Dict of lists with one entry per epoch of the last `fit()`,
            named as in `logs` without the prefix, and `epoch`.

    Raises:
        TypeError: If `prefix` is not a string or `prune_every` not an integer.
        ValueError: If an argument is out of its range; when training begins,
            if the model has no gate; when training begins and after each
            epoch, if a posterior has NaN or Inf.

    Example:

    >>> monitor = keras_sbp.SNRMonitor()
    >>> history = model.fit(x, y, epochs=20, callbacks=[monitor])
    >>> kept = monitor.history["kept"]
    """

    # Its batch hook touches one integer only, so Keras need not wait for it in each step.
    async_safe = True

    def __init__(
        self,
        verbose: int | str = "auto",
        quantiles: Sequence[float] = (0.05, 0.5, 0.95),
        prefix: str = "sbp_",
        prune_every: int | None = None,
    ) -> None:
        super().__init__()
        if verbose not in ("auto", 0, 1, 2):
            raise ValueError(
                'SNRMonitor expected `verbose` to be "auto", 0, 1 or 2. '
                f"Received: verbose={verbose!r}."
            )
        quantiles = tuple(float(q) for q in quantiles)
        if not all(0 <= q <= 1 for q in quantiles):
            raise ValueError(
                "SNRMonitor expected `quantiles` from 0 to 1, such as (0.05, 0.5, 0.95). "
                f"Received: quantiles={quantiles}."
            )
        if not isinstance(prefix, str):
            raise TypeError(f"SNRMonitor expected `prefix` to be a string. Received: {prefix!r}.")
        self.verbose = verbose
        self.quantiles = quantiles
        self.prefix = prefix
        if prune_every is not None:
            prune_every = check_count(
                "SNRMonitor", "prune_every", prune_every, otherwise="None or "
            )
        self.prune_every = prune_every
        self.history: dict[str, list] = {}
        self._gates: list[SBPLayer] = []
        self._told: list[SBPLayer] = []
        self._steps: int | None = None
        self._batches = 0
        self._pending_line: str | None = None
        self._last: EpochSummary | None = None

    def __repr__(self) -> str:
        if self._last is None:
            return f"<{type(self).__name__} before its first epoch>"
        epochs = self.history["epoch"][-1] + 1
        return f"<{type(self).__name__} after epoch {epochs}: {self._line(self._last)}>"

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Finds the gates, checks them and tells them the steps per epoch."""
        self._gates = require_gates(self.model, type(self).__name__)
        built = [gate for gate in self._gates if gate.built]
        for gate in built:
            gate.check_posterior()
        params = self.params or {}
        self._told = [gate for gate in self._gates if gate.num_samples is None]
        self._steps = int(params["steps"]) if params.get("steps") else None
        self._leave_out_of_weight_decay(built)
        self._loss = loss_values(self.model)
        self._tell_steps()
        self._say_what_is_not_known(self._loss)
        self.history = {}
        self._pending_line = self._last = None
        self._diagnosis = Diagnosis(self.model, params.get("epochs") or 1, self._steps)
        if len(built) == len(self._gates):
            self._diagnosis.begin(summarise(self._gates))

    def _leave_out_of_weight_decay(self, built: list[SBPLayer]) -> None:
        spare = [weight for gate in built for weight in (gate.mu, gate.log_sigma)]
        decays = leave_out_of_weight_decay(self.model.optimizer, spare)
        late = [f"'{gate.name}'" for gate in self._gates if not gate.built]
        if decays and late:
            _warn(
                [
                    f"The optimizer's weight decay pulls at gates that are not built when training "
                    f"begins: {', '.join(late)}. It would make noise of their units. Expected "
                    "gates that can be left out of it before the first step. Call the model on a "
                    "batch before fit(), or give it a keras.Input."
                ]
            )

    def _tell_steps(self) -> None:
        strategy = getattr(self.model, "distribute_strategy", None)
        replicas = getattr(strategy, "num_replicas_in_sync", 1)
        loss = self._loss or LossValues()
        guarded(self.model).tell(self._told)
        for gate in self._gates:
            gate.kl_weighting.restore_if_left_over()
        for gate in self._told:
            gate.kl_weighting.begin_fit(
                self, self._steps, replicas, loss.positions, loss.sums_batch
            )

    def _say_what_is_not_known(self, loss: LossValues | None) -> None:
        if self._told and loss is not None and loss.doubt:
            _warn(
                [
                    f"What the loss averages over is not known: {loss.doubt}. The KL is divided by "
                    f"the number of examples times {loss.positions}. Expected the number of "
                    "examples times that of the loss values of one example, if the loss averages "
                    "over them: pass SBPLayer(num_samples=...) with this product."
                ]
            )

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the line of the epoch before."""
        self._write_line()
        self._batches = 0
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Warns before the first step if the gates cannot get anywhere."""
        # By now other callbacks have set what they set when training or an epoch begins.
        if batch == 0 and self._diagnosis.looks_ahead and all(gate.built for gate in self._gates):
            _warn(self._diagnosis.before_epoch(self._epoch, summarise(self._gates)))

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Counts."""
        self._batches = max(self._batches, batch + 1)
        if self._loss is None:
            self._loss = loss_values(self.model) or LossValues()
            if self._loss != LossValues():
                doubt = "the model was not built when training began: call it on a batch before"
                self._say_what_is_not_known(LossValues(doubt=doubt))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Puts the numbers into `logs` and `history`, warns where due, and freezes where due."""
        for gate in self._gates:
            gate.check_posterior()
        self._last = summary = summarise(self._gates)
        loss = (logs or {}).get("loss")
        entries = self._entries(summary)
        if logs is not None:
            logs.update({self.prefix + key: value for key, value in entries.items()})
            of_gates = [f"{self.prefix}kept_{gate.name}" for gate in summary.gates]
            _hide_from_progress_bar(self.model, of_gates)
        for key, value in {"epoch": epoch, **entries}.items():
            self.history.setdefault(key, []).append(value)
        self._pending_line = self._line(summary)
        _warn(self._diagnosis.after_epoch(summary, loss, self._batches))
        if self.prune_every is not None and (epoch + 1) % self.prune_every == 0:
            self._freeze(summary)
        if self._steps is None and self._batches:
            for gate in self._told:
                gate.kl_weighting.end_epoch(self._batches)

    def _freeze(self, summary: EpochSummary) -> None:
        for gate, now in zip(self._gates, summary.gates, strict=True):
            # Freezing the last unit of a layer could not be taken back by training on. A gate
            # with a single unit holds a branch, which may go, unless it is all there is.
            if now.kept or (now.units == 1 and summary.kept):
                gate.freeze(now.keep)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Writes the last line, warns where due, and takes back what it said to the gates."""
        self._write_line()
        for gate in self._told:
            gate.kl_weighting.end_fit()
        if self._last is not None:
            _warn(self._diagnosis.at_end(self._last))

    def _entries(self, summary: EpochSummary) -> dict[str, float]:
        entries = {
            "kept": float(summary.kept),
            "sparsity": summary.sparsity,
            "kl": summary.kl_loss,
        }
        for q, value in zip(self.quantiles, summary.snr_quantiles(self.quantiles), strict=True):
            entries[f"snr_p{100 * q:g}"] = value
        for gate in summary.gates:
            entries[f"kept_{gate.name}"] = float(gate.kept)
        return entries

    def _line(self, summary: EpochSummary) -> str:
        line = (
            f"SBP keeps {summary.kept} of {summary.units} units "
            f"({summary.sparsity:.0%} sparsity), KL {summary.kl_loss:.3g}"
        )
        if 1 < len(summary.gates) <= _GATES_IN_LINE:
            line += ": " + ", ".join(f"{g.name} {g.kept}/{g.units}" for g in summary.gates)
        return line

    def _write_line(self) -> None:
        line, self._pending_line = self._pending_line, None
        verbose = (self.params or {}).get("verbose", 1) if self.verbose == "auto" else self.verbose
        if line is None or not verbose:
            return
        if keras.config.is_interactive_logging_enabled():
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        else:
            _logger.info(line)


def require_gates(model: Any, callback: str) -> list[SBPLayer]:
    """Returns the gates of a model, at least one.

    Raises:
        ValueError: If there is none.
    """
    gates = find_gates(model)
    if not gates:
        raise ValueError(
            f"{callback} found no gate in model '{model.name}'. Expected at least one SBPLayer. "
            "Put keras_sbp.SBPLayer() behind the layers whose units may go, or leave the callback "
            "out. If the model makes its layers only when it is built, build it before fit()."
        )
    return gates


def _warn(messages: list[str]) -> None:
    for message in messages:
        warn(message)


def _hide_from_progress_bar(model: keras.Model, names: Iterable[str]) -> None:
    """Has entries of an epoch's `logs` reach every callback but the progress bar.

    Keras hands one dict to all callbacks in turn, `History` second to last
    and the bar last. So the entries go, once, as soon as `History` has them.
    """
    history = getattr(model, "history", None)
    if not isinstance(history, keras.callbacks.History):
        return

    def record_and_hide(epoch: int, logs: dict[str, Any] | None = None) -> None:
        del history.on_epoch_end  # what is left is the method of its class
        history.on_epoch_end(epoch, logs)
        for name in names:
            (logs or {}).pop(name, None)

    history.on_epoch_end = record_and_hide
