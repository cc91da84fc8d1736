"""The callback that prunes to a target while the network trains."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from keras_sbp._arguments import check_number
from keras_sbp.callbacks.goals import WHOSE, Goal, check_target, goal_of
from keras_sbp.callbacks.snr_monitor import require_gates
from keras_sbp.evidence.network import ProgramNetwork
from keras_sbp.layers import SBPLayer
from keras_sbp.program import trace
from keras_sbp.pruning.decide import warn_of_hidden_gates
from keras_sbp.rules import Budget
from keras_sbp.telling import warn

# How often units go on the way, and how often where each time takes minutes: latency is measured.
_TIMES, _TIMES_OF_LATENCY = 20, 3


class GradualPruning(keras.callbacks.Callback):
    """Freezes units on schedule, until the network is as small as it is to be.

    What may remain falls along a polynomial, from everything to the target,
    while training gets from `begin` to `end`; tfmot's `PolynomialDecay` has the
    same shape. Which units go, the gates say. However many epochs there are,
    the target is met at `end`, and what is left of the training goes to what
    remains. Then `prune(model)` deletes what is frozen, and what the gates'
    own rules do not keep.

    What remains is counted as `prune()` counts it, by the gates' posteriors of
    the moment, so a `Budget` is met exactly: one unit more would exceed it. A
    frozen unit is 0 for good, see `SBPLayer.freeze()`. Units are frozen at
    about 20 points of the schedule, between training steps; at 3 where latency
    is measured, which takes minutes each time. Where the number of steps is
    not known, epochs count until the first is over.

    `SNRMonitor` goes with it, before or after it in the list. A training that
    is resumed, with `initial_epoch` or `BackupAndRestore`, goes on along the
    same curve; the weights hold which units are frozen. Callbacks that write
    checkpoints stand after this one; `EarlyStopping(restore_best_weights=True)`
    before it, as it would bring back units that went after the best epoch. The
    callback warns when training ends before the target is met.

    Reference:
        Zhu and Gupta (2017), To Prune, or Not to Prune
        (https://arxiv.org/abs/1710.01878), section 3 (the polynomial).

    Args:
        target: A `Budget` of MACs, parameters or latency; its base ranks, for
            gates `SNRThreshold()`. Or a mapping from names of layers (or
            gates) to how many of their units stay: integers, or floats in
            (0, 1] for fractions. Then each gate's own rule ranks, and other
            layers stay whole.
        begin: Float from 0 to 1, the part of the training (of the `epochs` of
            `fit()`) after which the first units go.
        end: Float from `begin` to 1, the part after which the target is met.
        power: Positive float, the exponent of the polynomial. Above 1, most
            units go soon; at 1, what remains falls linearly.

    Attributes:
        met: Whether the target was met in the last `fit()`.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If an argument is out of its range; when training begins,
            if the model is not built or has no gate, a name in the target is
            not known, or the budget cannot be met.

    Example:

    >>> target = keras_sbp.GradualPruning(keras_sbp.Budget(macs=0.3))
    >>> gated.fit(x, y, epochs=5, callbacks=[keras_sbp.SNRMonitor(), target])
    >>> small, report = keras_sbp.prune(gated)
    """

    def __init__(
        self,
        target: Budget | Mapping[str, int | float],
        *,
        begin: float = 0.2,
        end: float = 0.6,
        power: float = 3.0,
    ) -> None:
        super().__init__()
        self.target = check_target(target)
        self.begin = check_number(WHOSE, "begin", begin, at_least=0.0, such_as=0.2)
        self.end = check_number(WHOSE, "end", end, at_least=0.0, such_as=0.6)
        self.power = check_number(WHOSE, "power", power, positive=True, such_as=3.0)
        if not self.begin <= self.end <= 1:
            raise ValueError(
                f"{WHOSE} prunes from one part of the training to another. Expected 0 <= begin <= "
                f"end <= 1. Received: begin={begin!r}, end={end!r}. Pass begin=0.2, end=0.6, for "
                "instance."
            )
        self.met = False
        self._gates: list[SBPLayer] = []
        self._goal: Goal  # these two: when training begins
        self._network: ProgramNetwork
        self._at_target: dict[SBPLayer, np.ndarray] = {}
        self._steps: int | None = None
        self._epoch = self._batches = 0
        self._next = self._position = 0.0

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.target!r}, begin={self.begin}, end={self.end}, "
            f"power={self.power})"
        )

    def left(self, position: float) -> float:
        """Returns which part of the way to the target is left.

        Args:
            position: Float from 0 to 1, the part of the training that is over.
        """
        if position >= self.end:
            return 0.0
        over = max(0.0, position - self.begin) / (self.end - self.begin)
        return (1.0 - over) ** self.power

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Looks at the network, once, and at whether the target can be met."""
        self._gates = require_gates(self.model, WHOSE)
        program = trace(self.model)
        warn_of_hidden_gates(program)
        self._network = ProgramNetwork(program, loss=getattr(self.model, "loss", None))
        self._goal = goal_of(self.target, self._network)
        steps = (self.params or {}).get("steps")
        self._steps = int(steps) if steps else None
        self._epochs = int((self.params or {}).get("epochs") or 1)
        self.met, self._at_target = False, {}
        self._next = self.begin

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Takes the number of the epoch, in a resumed training too."""
        self._epoch, self._batches = epoch, 0

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Freezes units where it is time."""
        # Keras calls this hook, unlike that at a batch's end, in the thread that trains.
        self._batches = max(self._batches, batch + 1)
        over = batch / self._steps if self._steps else 0.0
        self._get_to((self._epoch + min(over, 1.0)) / self._epochs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Freezes units where it is time."""
        self._steps = self._steps or self._batches or None
        self._get_to((epoch + 1) / self._epochs)

    def _get_to(self, position: float) -> None:
        self._position = position
        if self.met or position < self._next:
            return
        is_latency = isinstance(self.target, Budget) and self.target.what == "latency"
        times = _TIMES_OF_LATENCY if is_latency else _TIMES
        self._next = min(self.end, position + (self.end - self.begin) / times)
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()  # its trainer holds the values
        self._freeze(self.left(position))

    def _freeze(self, left: float) -> None:
        for gate in self._gates:
            gate.check_posterior()
        network = self._network.as_it_is_now()
        for group, keep in self._goal.keep(network, left).items():
            held = network.gate_of(group)
            if isinstance(held, SBPLayer):
                held.freeze(keep)
        if not left:
            self.met = True
            self._at_target = {gate: gate.alive for gate in self._gates}

    def finish(self) -> None:
        """Freezes what is left to freeze, after a `fit()` that stopped early or took units back."""
        if not (self.met and self._is_at_target()):
            self._freeze(0.0)

    def _is_at_target(self) -> bool:
        return not any((gate.alive & ~self._at_target[gate]).any() for gate in self._gates)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Warns where the target is not met."""
        if self.met:
            self.met = self._is_at_target()
            if self.met:
                return
            why = (
                "weights of an earlier epoch were restored, with units that had gone after it. "
                "Pass EarlyStopping(restore_best_weights=False), or start_from_epoch=... so that "
                "only epochs after the target count"
            )
        else:
            why = (
                f"training ended with {self._position:.0%} of its epochs over, and the last units "
                f"go at {self.end:.0%}. Train on with fit(initial_epoch=...), or stop later"
            )
        warn(
            f"{WHOSE} has not met its target, {self.target!r}: {why}. Or prune(model, rule) with "
            "the budget as its rule, and train the small network."
        )
