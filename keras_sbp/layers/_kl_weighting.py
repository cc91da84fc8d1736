"""How much one training step counts the KL of a gate.

The evidence lower bound of N examples, per example, is the data loss plus
KL / N. The user gives N, or says how many steps an epoch has and the gate
itself sees the batch sizes. Where the data loss averages over P positions of
an example, it is P times too small beside the KL, which is then divided by
N * P; where it adds examples up, the KL is multiplied by the size of the batch.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_sbp import _keras
from keras_sbp._arguments import check_count
from keras_sbp.layers._posterior_weights import host_value


class KLWeighting:
    """The factor on the KL of one gate, in the graph and on the host.

    Its variables belong to the layer: compiled functions and JAX's stateless
    calls see them change. They are facts about a training run, so they are
    not saved with the weights.

    In the first epoch, N is what was seen plus what the steps to come hold if
    each is as large as the largest batch so far. It only grows meanwhile:
    there is no step that counts the KL many times its due because the batch
    is a small one. From the second epoch on N is the number of examples of
    the first.

    Args:
        layer: The gate, with `num_samples` and `kl_weight` set.
        dtype: Dtype of the gate's arithmetic.

    Attributes:
        factor: Scalar variable, a further factor that callbacks write.
        used: Whether a training step has ever asked for the factor.
    """

    def __init__(self, layer: keras.layers.Layer, dtype: str) -> None:
        self._layer = layer
        self._dtype = dtype
        self._told = False
        self._users_word: tuple[int | None, int] | None = None
        self._counted_for: weakref.ref | None = None
        self._weakened: tuple[float, Callable[[], bool]] | None = None
        self._last_length: int | None = None
        self.used = False
        self.factor = self._add_scalar("kl_factor", "ones")
        # Of an epoch, 0 for unknown.
        self._steps = self._add_scalar("steps_per_epoch", "zeros")
        self._replicas = self._add_scalar("replicas", "ones")
        # Of the steps counted so far. The examples that their batches lack to the largest one are
        # few, so that they are exact in float32 where a sum of all examples would not be.
        self._counted = self._add_scalar("counted_steps", "zeros")
        self._largest_batch = self._add_scalar("largest_batch", "zeros")
        self._lacking = self._add_scalar("lacking_examples", "zeros")
        # N of the last step, per replica.
        self._examples = self._add_scalar("examples", "zeros")
        # What the data loss of the fit() averages over, and whether it adds examples up.
        self._positions = self._add_scalar("loss_positions", "ones")
        self._sums_batch = self._add_scalar("loss_sums_batch", "zeros")

    def _add_scalar(self, name: str, initializer: str) -> keras.Variable:
        return self._layer.add_weight(
            shape=(),
            initializer=initializer,
            dtype=self._dtype,
            trainable=False,
            autocast=False,
            # Anything else would let TensorFlow's replicas change turns in the middle of a forward
            # pass, and they share the layer's list of losses.
            aggregation="none",
            name=name,
        )

    @property
    def is_known(self) -> bool:
        """Whether a training step may ask for the factor now."""
        return self._told or self._layer.num_samples is not None

    def take(self, other: KLWeighting) -> None:
        """Takes what the user has told another one. Variables are left to the caller."""
        self._users_word = other._users_word
        self._told = other._told and other._users_word is not None

    def set_steps_per_epoch(self, steps: int | None, replicas: int = 1) -> None:
        """Takes the user's word for the steps per epoch. It holds until the next one."""
        whose = f"SBPLayer '{self._layer.name}'"
        if steps is not None:
            steps = check_count(whose, "steps", steps, otherwise="None, if unknown, or ")
        replicas = check_count(whose, "replicas", replicas)
        self._restart(steps, replicas)
        self._users_word = (steps, replicas)
        self._positions.assign(1.0)
        self._sums_batch.assign(0.0)
        self._counted_for = None

    def begin_fit(
        self,
        callback: object,
        steps: int | None,
        replicas: int,
        positions: int = 1,
        sums_batch: bool = False,
    ) -> None:
        """Takes a callback's word for the steps per epoch and the loss. `end_fit` takes it back.

        Where the steps are unknown, what the gate has counted for the same
        callback in an earlier `fit()` is the best guess.
        """
        same = self._counted_for is not None and self._counted_for() is callback
        if steps is not None or not same or not _to_float(self._steps):
            self._restart(steps, replicas)
        self._positions.assign(float(positions))
        self._sums_batch.assign(float(sums_batch))
        self._counted_for = weakref.ref(callback)
        self._told = True

    def weaken(self, factor: float, holds: Callable[[], bool]) -> None:
        """Takes a callback's word for the factor, as long as it holds.

        A `fit()` that is interrupted tells nobody that it ended: what is left
        of its factor then counts as 1.

        Args:
            factor: The factor on the KL.
            holds: Whether the `fit()` that it was said for still runs.
        """
        self.factor.assign(factor)
        self._weakened = (_to_float(self.factor), holds)

    def restore(self) -> None:
        """Takes back what `weaken` said."""
        self.factor.assign(1.0)
        self._weakened = None

    def restore_if_left_over(self) -> None:
        """Takes back what `weaken` said for a `fit()` that was interrupted."""
        if self._left_over is not None:
            self.restore()

    def end_epoch(self, steps: int) -> None:
        """Takes the steps of an epoch whose length was not known before.

        They may be counted a little too high, when Keras executes several at
        once; the gate has counted those that there were.
        """
        if steps == self._last_length:
            return
        self._last_length = steps
        length, counted = float(steps), _to_float(self._counted)
        if not _to_float(self._steps) and counted:
            length = min(length, counted)
        self._steps.assign(length)

    def end_fit(self) -> None:
        """Takes back what a callback said, for the next data may be others.

        The N of the last step stays to be shown, unless the user has said
        something before.
        """
        self.forget()
        if self._users_word is not None:
            self.set_steps_per_epoch(*self._users_word)

    def forget(self) -> None:
        """Lets no step train with what a callback said. Writes no variable."""
        if self._counted_for is not None:
            self._told = False

    def _restart(self, steps: int | None, replicas: int) -> None:
        host_value(self._steps)  # raises where a write would be lost
        self._told = True
        self._last_length = None
        self._steps.assign(float(steps or 0))
        self._replicas.assign(float(replicas))
        for variable in (self._counted, self._largest_batch, self._lacking, self._examples):
            variable.assign(0.0)

    def tensor(self, inputs: Any) -> Any:
        """Returns the factor on the KL for a training step on `inputs`.

        Raises:
            RuntimeError: If the number of samples was neither given nor set.
        """
        self.used = True
        factor = ops.convert_to_tensor(self.factor)
        if (left := self._left_over) is not None:
            factor = ops.where(factor == left, ops.ones_like(factor), factor)
        weight = self._layer.kl_weight * factor
        if self._layer.num_samples is not None:
            return weight / self._layer.num_samples
        self.require_known()
        batch = ops.cast(ops.shape(inputs)[0], self._dtype)
        examples = self._count(batch) * ops.convert_to_tensor(self._positions)
        num_samples = examples * ops.convert_to_tensor(self._replicas)
        weight = weight * ops.where(ops.convert_to_tensor(self._sums_batch) > 0, batch, 1.0)
        return ops.where(num_samples > 0, weight / ops.maximum(num_samples, 1.0), 0.0 * weight)

    def _count(self, batch: Any) -> Any:
        """Counts a batch, if the first epoch is not over, and returns the examples of an epoch."""
        steps, counted, largest, lacking, before = (
            ops.convert_to_tensor(variable)
            for variable in (
                self._steps,
                self._counted,
                self._largest_batch,
                self._lacking,
                self._examples,
            )
        )
        counting = ops.logical_or(counted < steps, steps == 0)
        grown = ops.maximum(largest, batch)
        lacking = ops.where(
            counting, lacking + counted * (grown - largest) + (grown - batch), lacking
        )
        largest = ops.where(counting, grown, largest)
        examples = steps * largest - lacking
        examples = ops.where(counting, ops.maximum(before, examples), examples)
        self._counted.assign(ops.where(counting, counted + 1, counted))
        self._largest_batch.assign(largest)
        self._lacking.assign(lacking)
        self._examples.assign(examples)
        return examples

    def value(self) -> float:
        """Returns the factor on the KL of the last training step, on the host."""
        num_samples = self._layer.num_samples
        if num_samples is None:
            num_samples = _to_float(self._examples) * _to_float(self._replicas)
            num_samples *= _to_float(self._positions)
            if _to_float(self._sums_batch):
                num_samples /= _to_float(self._largest_batch) or 1.0
        if num_samples == 0:
            return 0.0
        factor = _to_float(self.factor)
        return self._layer.kl_weight * (1.0 if factor == self._left_over else factor) / num_samples

    @property
    def _left_over(self) -> float | None:
        """The factor that a `fit()` left that was interrupted."""
        if self._weakened is None:
            return None
        factor, holds = self._weakened
        return None if holds() else factor

    def require_known(self) -> None:
        """Raises a RuntimeError if the number of samples was neither given nor set."""
        if self.is_known:
            return
        _keras.undo_running_step()
        name = self._layer.name
        raise RuntimeError(
            f"SBPLayer '{name}' was called with training=True, but does not know the number of "
            "training examples that its KL must be divided by. Expected num_samples at "
            "construction, or a word from a callback before the first step. Received: "
            "num_samples=None and no callback. Either pass SBPLayer(num_samples=len(x_train)), "
            "or train with model.fit(..., callbacks=[keras_sbp.SNRMonitor()])."
        )


def _to_float(variable: keras.Variable) -> float:
    return float(host_value(variable))
