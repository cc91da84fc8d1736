"""Small gated networks around a layer, and the oracle on them."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np

from keras_sbp.comparing.drawing import filled
from keras_sbp.layers import SBPLayer, find_gates
from keras_sbp.pruning import prune
from keras_sbp.testing.draws import BATCH_SIZE, UNKNOWN_SIZE, Draw
from keras_sbp.testing.policies import close, under
from keras_sbp.testing.trial import run

KEEPS = ("all", "half", "one")


class Maker(Protocol):
    """What is asked of the contract."""

    gated_inputs: Sequence[int]
    gated_outputs: Sequence[int]

    def make_layer(self) -> keras.layers.Layer:
        """A new layer."""

    def call(self, layer: Any, inputs: list[Any]) -> Any:
        """Its outputs."""

    def randomise(self, layer: Any, rng: np.random.Generator) -> None:
        """Gives it random weights."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Random numbers for an input."""

    def make_inputs(self, policy: str) -> list[keras.KerasTensor]:
        """New symbolic inputs."""


@dataclass
class Network:
    """A gated network around one layer.

    Attributes:
        where: for messages.
    """

    model: keras.Model
    layer: keras.layers.Layer
    where: str


def gated_network(maker: Maker, policy: str, seed: int, keep: str, calls: int = 1) -> Network:
    """Returns Dense → gates → layer → gates → Dense, for every input, output and call.

    Args:
        keep: what the gates keep: "all", "half" or "one".
    """
    rng = np.random.default_rng(seed)
    with under(policy):
        layer = maker.make_layer()
        inputs, outputs, gates = [], [], []
        for _ in range(calls):
            entries = maker.make_inputs(policy)
            gates_of_call: list[SBPLayer] = []
            gated = [_before(x, maker.gated_inputs, gates_of_call, seed) for x in entries]
            inputs += entries
            results = keras.tree.flatten(maker.call(layer, gated))
            outputs += [_after(y, maker.gated_outputs, gates_of_call) for y in results]
            gates.append(gates_of_call)
        model = keras.Model(inputs, outputs)
    for each in model.layers:
        if each is layer:
            maker.randomise(layer, rng)
        elif not isinstance(each, SBPLayer):
            each.set_weights([rng.normal(0, 0.7, w.shape) for w in each.weights])
    for number, gates_of_call in enumerate(gates):
        for gate in gates_of_call:
            _decide(gate, keep, number, rng)
    return Network(model, layer, f"{policy}, gates keep {keep}, {calls} calls, seed {seed}")


def _before(
    x: keras.KerasTensor, axes: Sequence[int], gates: list[SBPLayer], seed: int
) -> keras.KerasTensor:
    """The gates' means arrive as pending scales; for odd seeds, what was removed arrives as 0.5."""
    if "float" not in x.dtype or len(x.shape) < 2 or x.shape[-1] is None:
        return x
    # Behind a linear layer, the means would go back into its weights.
    x = keras.layers.Dense(x.shape[-1], activation=None if seed % 2 else "tanh")(x)
    x = _gated(x, axes, gates)
    return keras.layers.Activation("sigmoid")(x) if seed % 2 else x


def _after(y: keras.KerasTensor, axes: Sequence[int], gates: list[SBPLayer]) -> keras.KerasTensor:
    if "float" not in y.dtype or len(y.shape) < 2 or y.shape[-1] is None:
        return y
    y = _gated(y, axes, gates)
    if None not in y.shape[1:]:
        y = keras.layers.Flatten(data_format="channels_last")(y)
    return keras.layers.Dense(3)(y)


def _gated(x: keras.KerasTensor, axes: Sequence[int], gates: list[SBPLayer]) -> keras.KerasTensor:
    for axis in axes:
        rank = len(x.shape)
        if axis % rank > 0 and -rank <= axis < rank and x.shape[axis] is not None:
            gates.append(SBPLayer(axis=axis))
            x = gates[-1](x)
    return x


def _decide(gate: SBPLayer, keep: str, call: int, rng: np.random.Generator) -> None:
    # Gates around one call keep the same units: else little would be left between them.
    order = np.random.default_rng([gate.units, call]).permutation(gate.units)
    stay = {"all": gate.units, "half": (gate.units + 1) // 2, "one": 1}[keep]
    kept = np.isin(np.arange(gate.units), order[:stay])
    gate.set_posterior(rng.normal(-0.5, 0.3, gate.units), np.where(kept, -3.0, 3.0))


def same_function(network: Network, draw: Draw) -> keras.Model | None:
    """Prunes and compares; returns the small model, or None where nothing would be left of it."""
    try:
        small, _ = prune(network.model, verify=False)
    except ValueError as error:
        if "would not depend on the input" in str(error):
            return None
        raise
    if find_gates(small):
        raise AssertionError(f"The pruned network still has gates ({network.where}).")
    _same_outputs(network.model, small, draw, network.where)
    return small


def survives_saving(network: Network, small: keras.Model, draw: Draw) -> None:
    """Fails where the pruned network is another one after saving and loading."""
    classes = {type(layer).__name__: type(layer) for layer in network.model.layers}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "small.keras"
        small.save(path)
        again = keras.saving.load_model(path, custom_objects=classes)
    _same_outputs(small, again, draw, f"{network.where}, saved and loaded")


def _same_outputs(model: keras.Model, other: keras.Model, draw: Draw, where: str) -> None:
    """Fails where two models differ on random inputs."""
    rng, inputs = np.random.default_rng(0), []
    for x in model.inputs:
        inputs.append(draw(rng, filled(x.shape, BATCH_SIZE, UNKNOWN_SIZE), x.dtype))
    for x, y, tensor in zip(run(model, inputs), run(other, inputs), model.outputs, strict=True):
        if not close(x, y, tensor.dtype):
            raise AssertionError(
                f"The pruned network differs from the gated one by {np.abs(x - y).max():.3g}, "
                f"where the largest output is {np.abs(x).max():.3g} ({where})."
            )


def require_shared(network: Network, small: keras.Model) -> None:
    """Fails where two calls of a layer with weights have become two layers."""
    cls = type(network.layer)
    before, after = _count(network.model, cls), _count(small, cls)
    if after > before:
        raise AssertionError(
            f"Two calls of one {cls.__name__} have become {1 + after - before} layers with weights "
            "of their own. Expected one: build.layer(op) returns the same layer for every call of "
            f"a shared one ({network.where})."
        )


def _count(model: keras.Model, cls: Any) -> int:
    return sum(isinstance(layer, cls) and bool(layer.weights) for layer in model.layers)
