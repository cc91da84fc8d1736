"""How much one training step counts the KL of a gate.

The evidence lower bound of N examples, per example, is the data loss plus
KL / N. The user gives N, or a callback gives the steps per epoch and the gate
itself sees the batch size, so that N = batch size * steps * replicas.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any

import keras
from keras import ops


class KLWeighting:
    """The factor on the KL of one gate, in the graph and on the host.

    Its variables belong to the layer: compiled functions and JAX's stateless
    calls see them change. They are facts about a training run, so they are
    not saved with the weights.

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
        self.used = False
        self.factor = self._add_scalar("kl_factor", "ones")
        self._steps = self._add_scalar("steps_per_epoch", "zeros")
        self._largest_batch = self._add_scalar("largest_batch", "zeros")

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

    def set_steps_per_epoch(self, steps: int | None, replicas: int = 1) -> None:
        """Stores the steps per epoch over all replicas, 0 for unknown."""
        for argument, value in (("steps", steps), ("replicas", replicas)):
            if argument == "steps" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
                raise ValueError(
                    f"SBPLayer '{self._layer.name}' needs `{argument}` to be a positive integer"
                    f"{', or None if unknown' if argument == 'steps' else ''}. "
                    f"Received: {argument}={value!r}."
                )
        self._told = True
        self._steps.assign(float((steps or 0) * replicas))
        self._largest_batch.assign(0.0)

    def tensor(self, inputs: Any) -> Any:
        """Returns the factor on the KL for a training step on `inputs`.

        Raises:
            RuntimeError: If the number of samples was neither given nor set.
        """
        self.used = True
        weight = self._layer.kl_weight * ops.convert_to_tensor(self.factor)
        if self._layer.num_samples is not None:
            return weight / self._layer.num_samples
        if not self._told:
            raise RuntimeError(self._untold())
        batch = ops.cast(ops.shape(inputs)[0], self._dtype)
        # The last batch of an epoch may be a small one. Counting it by its own size would give
        # the KL there many times its due, and one such step spoils Adam's second moments.
        batch = ops.maximum(batch, ops.convert_to_tensor(self._largest_batch))
        self._largest_batch.assign(batch)
        num_samples = batch * ops.convert_to_tensor(self._steps)
        return ops.where(num_samples > 0, weight / ops.maximum(num_samples, 1.0), 0.0 * weight)

    def value(self) -> float:
        """Returns the factor on the KL of the last training step, on the host."""
        num_samples = self._layer.num_samples
        if num_samples is None:
            num_samples = _to_float(self._steps) * _to_float(self._largest_batch)
        if num_samples == 0:
            return 0.0
        return self._layer.kl_weight * _to_float(self.factor) / num_samples

    def _untold(self) -> str:
        name = self._layer.name
        return (
            f"SBPLayer '{name}' was called with training=True, but does not know the number of "
            "training examples that its KL must be divided by. Expected num_samples at "
            "construction, or a word from a callback before the first step. Received: "
            "num_samples=None and no callback. Either pass SBPLayer(num_samples=len(x_train)), "
            "or train with model.fit(..., callbacks=[keras_sbp.SNRMonitor()])."
        )


def _to_float(variable: keras.Variable) -> float:
    return float(ops.convert_to_numpy(variable.value))
