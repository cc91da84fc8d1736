"""Second moments of what linear layers read, in one network, and would make of it in another."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_sbp.comparing.examples import arrays_of
from keras_sbp.evidence.linear_readers import Reader
from keras_sbp.insertion.gates import Gate, gates_of, with_decisions
from keras_sbp.program import Program
from keras_sbp.program.domains import slots_of
from keras_sbp.program.linear_map import LinearMap
from keras_sbp.program.run import run
from keras_sbp.rules.least_squares import Moments

BATCH_SIZE = 64

# Beyond so many rows per layer, output positions of convolutions are drawn at random: about as
# many of each example. Neighbours are much alike, so little is lost.
MOST_ROWS = 16384

Weights = tuple[tuple[keras.Variable, np.ndarray], ...]

CHECKED = 4  # every fourth example serves to check what was fitted on the others


@dataclass(frozen=True)
class State:
    """One of the networks that a program stands for.

    Attributes:
        decisions: which units each gate keeps.
        weights: (variable, value) pairs, in place of the variables' own values.
    """

    decisions: dict[Gate, np.ndarray]
    weights: Weights = ()

    @classmethod
    def original(cls, program: Program) -> State:
        """Returns the network in which every gate keeps every unit."""
        return cls({gate: np.ones(gate.units, bool) for gate in gates_of(program)})


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
        program: a traced program.
        data: inputs of the model, in any of the forms that Keras takes.
        seed: of the choice of positions.
    """

    def __init__(self, program: Program, data: Any, seed: int = 0) -> None:
        self._graph, self._seed = program, seed
        self._data = checked_data(program, data)
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
        read = with_decisions(self._graph, inputs.decisions)
        aimed_at = with_decisions(self._graph, targets.decisions)
        for number, batch in enumerate(self._batches()):
            features = wanted = _values(read, batch, readers, inputs.weights)
            if targets is not inputs:
                wanted = _values(aimed_at, batch, readers, targets.weights)
            for place, (reader, result) in enumerate(zip(readers, results, strict=True)):
                rng = np.random.default_rng([self._seed, number, place])
                which, checked = self._rows(reader.linear, features[place].shape, rng)
                x = _with_bias(reader.linear, features[place], which)
                y = _with_bias(reader.linear, wanted[place], which) @ result.weights
                result.fit.add(x[~checked], y[~checked])
                result.check.add(x[checked], y[checked])
        return results

    def _batches(self) -> Iterator[list[np.ndarray]]:
        for start in range(0, self._examples, BATCH_SIZE):
            yield [part[start : start + BATCH_SIZE] for part in self._data]

    def _rows(
        self, linear: LinearMap, shape: tuple[int, ...], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of rows, and which of them are of examples to check on."""
        rows = linear.count_rows(shape)
        limit = max(1, MOST_ROWS * shape[0] // self._examples)
        which = np.arange(rows)
        if rows > limit:
            which = np.sort(rng.choice(rows, limit, replace=False))
        return which, which // (rows // shape[0]) % CHECKED == CHECKED - 1


def checked_data(program: Program, data: Any, argument: str = "data") -> list[np.ndarray]:
    """Returns data as one array for each input of a model.

    Args:
        program: the model as a program.
        data: inputs in any of the forms that Keras takes; labels in them are left out.
        argument: the name of the argument that holds them, for messages.

    Raises:
        ValueError: they do not fit the inputs of the model, or there are fewer than 8 examples.
    """
    arrays = arrays_of(data, slots_of(program), argument, enough=sys.maxsize)
    if len(arrays[0]) < 2 * CHECKED:
        raise ValueError(
            f"`{argument}` has {len(arrays[0])} examples, too few to fit weights on some of them "
            f"and check these on others. Expected at least {2 * CHECKED}, better a few hundred. "
            "Give more examples."
        )
    return arrays


def _values(
    program: Program, batch: list[np.ndarray], readers: Sequence[Reader], weights: Weights
) -> list[np.ndarray]:
    tensors = [reader.op.inputs[0] for reader in readers]
    values = run(program, batch, tensors, weights)
    return [keras.ops.convert_to_numpy(values[tensor]) for tensor in tensors]


def _empty(reader: Reader) -> Measured:
    linear, unit_of = reader.linear, reader.unit_of
    weights = linear.matrix
    if linear.bias is not None:
        bias = keras.ops.convert_to_numpy(linear.bias).astype(np.float64)
        weights = np.concatenate([weights, bias.reshape(1, -1)])
        unit_of = np.append(unit_of, -1)
    fit, check = (Moments.empty(unit_of, weights.shape[1], reader.op.name) for _ in range(2))
    return Measured(fit, check, weights)


def _with_bias(linear: LinearMap, x: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Some rows of a layer's input, with a feature of ones for the bias that it has."""
    rows = linear.take_rows(x, which).astype(np.float64)
    if linear.bias is None:
        return rows
    return np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
