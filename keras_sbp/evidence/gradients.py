"""How the loss would react if units were multiplied by something else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_sbp.insertion.gated_copy import gated_copy
from keras_sbp.insertion.gates import Gate, axis_of
from keras_sbp.layers._axis import broadcast_shape
from keras_sbp.program import Program
from keras_sbp.program.removal import Site


def squared_gradients(
    program: Program, gates: Sequence[Gate], data: Any, loss: Any, batch_size: int
) -> dict[Gate, np.ndarray]:
    """Returns (∂loss/∂θ)² for a factor θ = 1 behind each unit of each gate, mean over batches.

    A copy of the model runs as at inference. Its only trainable weights are these factors, and
    an optimizer that subtracts the gradient as it is leaves it in them, on every backend.

    Args:
        program: a traced program.
        gates: of the program.
        data: `(x, y)`, as for `fit()`.
        loss: a Keras loss or its name.
        batch_size: examples over whose mean loss one gradient is taken.

    Raises:
        ValueError: there is no loss.
    """
    if loss is None:
        raise ValueError(
            f"Model '{program.model.name}' is not compiled with a loss, so there is nothing to "
            "differentiate. Expected a loss. Pass one, such as "
            'keras_sbp.Taylor(data, loss="sparse_categorical_crossentropy"), or compile the model.'
        )
    probes = {gate: Probe(gate.axis, gate.units, name=f"{gate.name}_probe") for gate in gates}
    copy = gated_copy(program, {probe: _sites(program, gate) for gate, probe in probes.items()})
    copy.trainable = False
    for probe in probes.values():
        probe.trainable = True
    model = AtInference(copy)
    model.compile(
        keras.optimizers.SGD(1.0),
        loss,
        jit_compile=keras.backend.backend() == "jax",
    )
    totals = {gate: np.zeros(gate.units) for gate in gates}
    batches = 0
    for x, y in _batches(data, batch_size):
        for probe in probes.values():
            probe.change.assign(np.zeros(probe.units))
        model.train_on_batch(x, y)
        batches += 1
        for gate, probe in probes.items():
            change = keras.ops.convert_to_numpy(probe.change)
            totals[gate] += change.astype(np.float64) ** 2
    return {gate: total / batches for gate, total in totals.items()}


class Probe(keras.layers.Layer):
    """Multiplies units by 1 + change."""

    def __init__(self, axis: int | None, units: int, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.axis, self.units = axis, units
        self.change = self.add_weight(shape=(units,), initializer="zeros", name="change")

    def call(self, inputs: Any) -> Any:
        """Returns the product."""
        shape = broadcast_shape(self.axis, len(inputs.shape), self.units, 1)
        factor = keras.ops.reshape(1.0 + self.change, shape)
        return inputs * keras.ops.cast(factor, inputs.dtype)


class AtInference(keras.Model):
    """Trains a network that behaves as at inference: no dropout, no noise, fixed statistics."""

    def __init__(self, network: keras.Model) -> None:
        super().__init__()
        self.network = network

    def call(self, inputs: Any) -> Any:
        """Returns the network's outputs."""
        return self.network(inputs, training=False)


def _sites(program: Program, gate: Gate) -> list[Site]:
    return [Site(op.outputs[0], axis_of(op)) for op in program.ops if op.operation is gate]


def _batches(data: Any, batch_size: int) -> Iterator[tuple[Any, Any]]:
    count = len(keras.tree.flatten(data[0])[0])
    for start in range(0, count, batch_size):
        yield tuple(
            keras.tree.map_structure(lambda each: each[start : start + batch_size], part)  # noqa: B023
            for part in data
        )
