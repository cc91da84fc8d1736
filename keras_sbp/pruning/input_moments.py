"""Second moments of what linear layers read, in one network, and would make of it in another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_sbp.graph import Graph, Op
from keras_sbp.graph.run import run
from keras_sbp.layers import SBPLayer, deciding
from keras_sbp.pruning.readers import Reader
from keras_sbp.pruning.rows import count_rows, matrix, take_rows
from keras_sbp.rules.least_squares import Moments

BATCH_SIZE = 64

# Beyond so many rows per layer, output positions of convolutions are drawn at random: about as
# many of each example. Neighbours are much alike, so little is lost.
MOST_ROWS = 16384

CHECKED = 4  # every fourth example serves to check what was fitted on the others


@dataclass(frozen=True)
class State:
    """One of the networks that a program stands for.

    Attributes:
        decisions: which units each gate keeps.
        weights: (variable, value) pairs, in place of the variables' own values.
    """

    decisions: dict[SBPLayer, np.ndarray]
    weights: tuple[tuple[keras.Variable, np.ndarray], ...] = ()

    @classmethod
    def original(cls, graph: Graph) -> State:
        """Returns the network in which every gate keeps every unit."""
        gates = {op.operation for op in graph.ops if isinstance(op.operation, SBPLayer)}
        return cls({gate: np.ones(gate.units, bool) for gate in gates})


@dataclass
class Measured:
    """Second moments of a layer, on two separate sets of examples.

    Attributes:
        fit, check: the moments; where the layer has a bias, its feature is the last.
        weights: the layer's own, which make the targets. Shape (F, m).
    """

    fit: Moments
    check: Moments
    weights: np.ndarray

    @property
    def all(self) -> Moments:
        """The moments on all examples."""
        return self.fit + self.check


class Meter:
    """Runs a program on data.

    Args:
        graph: a traced program.
        data: inputs of the model, as for `predict()`: arrays in its input structure.
        seed: of the choice of positions.
    """

    def __init__(self, graph: Graph, data: Any, seed: int = 0) -> None:
        self._graph, self._seed = graph, seed
        self._data = checked_data(graph, data)
        self._examples = len(self._data[0])

    def measure(self, readers: Sequence[Reader], inputs: State, targets: State) -> list[Measured]:
        """Returns the moments of layers: features from one network, targets from another.

        The targets are what the layer's own weights make of its input in the other network,
        bias included, activation not.

        Args:
            readers: which layers.
            inputs: where the features are from.
            targets: where what the targets are computed from is from.
        """
        results = [_empty(reader) for reader in readers]
        for number, batch in enumerate(self._batches()):
            features = self._values(batch, readers, inputs)
            wanted = features if targets is inputs else self._values(batch, readers, targets)
            for place, (reader, result) in enumerate(zip(readers, results, strict=True)):
                rng = np.random.default_rng([self._seed, number, place])
                which, checked = self._rows(reader.op, features[place].shape, rng)
                x = _with_bias(reader.op, take_rows(reader.op, features[place], which))
                y = _with_bias(reader.op, take_rows(reader.op, wanted[place], which))
                y = y @ result.weights
                result.fit.add(x[~checked], y[~checked])
                result.check.add(x[checked], y[checked])
        return results

    def _batches(self) -> Iterator[list[np.ndarray]]:
        for start in range(0, self._examples, BATCH_SIZE):
            yield [part[start : start + BATCH_SIZE] for part in self._data]

    def _values(
        self, batch: list[np.ndarray], readers: Sequence[Reader], state: State
    ) -> list[np.ndarray]:
        tensors = [reader.op.inputs[0] for reader in readers]
        with deciding(state.decisions):
            values = run(self._graph, batch, tensors, state.weights)
        return [keras.ops.convert_to_numpy(values[tensor]) for tensor in tensors]

    def _rows(
        self, op: Op, shape: tuple[int, ...], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of rows, and which of them are of examples to check on."""
        rows = count_rows(op, shape)
        limit = max(1, MOST_ROWS * shape[0] // self._examples)
        which = np.arange(rows)
        if rows > limit:
            which = np.sort(rng.choice(rows, limit, replace=False))
        return which, which // (rows // shape[0]) % CHECKED == CHECKED - 1


def checked_data(graph: Graph, data: Any) -> list[np.ndarray]:
    """Returns data as a flat list of arrays.

    Raises:
        ValueError: they do not fit the inputs of the model, or there are fewer than 8 examples.
    """
    arrays = [np.asarray(part) for part in keras.tree.flatten(data)]
    sizes = {len(part) if part.ndim else 0 for part in arrays}
    fits = len(arrays) == len(graph.inputs) and all(
        part.ndim == tensor.rank for part, tensor in zip(arrays, graph.inputs, strict=True)
    )
    if not fits or len(sizes) != 1 or min(sizes) < 2 * CHECKED:
        expected = ", ".join(str(tensor.shape) for tensor in graph.inputs)
        received = ", ".join(str(part.shape) for part in arrays)
        raise ValueError(
            f"The data do not fit model '{graph.model.name}'. Expected inputs as for predict(), "
            f"without labels, at least {2 * CHECKED} examples: arrays of shape {expected}. "
            f"Received: {received}."
        )
    return arrays


def _empty(reader: Reader) -> Measured:
    layer = reader.op.operation
    weights, unit_of = matrix(layer.kernel), reader.unit_of
    if layer.use_bias:
        weights = np.concatenate([weights, matrix(layer.bias).reshape(1, -1)])
        unit_of = np.append(unit_of, -1)
    fit, check = (Moments.empty(unit_of, weights.shape[1], reader.op.name) for _ in range(2))
    return Measured(fit, check, weights)


def _with_bias(op: Op, rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    if not op.operation.use_bias:
        return rows
    return np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
