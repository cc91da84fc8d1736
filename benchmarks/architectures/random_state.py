"""Random weights and gates under which every unit of a network matters.

An untrained deep network fades: after many layers its outputs hardly depend on its inputs, and then
the comparison of two such networks shows nothing. So a batch is sent through it, call by call, and
each layer is adjusted to what arrives there, gates included.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_sbp.layers import SBPLayer, find_gates
from keras_sbp.program import Op, Program, Tensor, trace
from keras_sbp.program.run import call, inputs_of

DROP = 0.4


def randomise(model: keras.Model, batch: Any, seed: int, drop: float = DROP) -> None:
    """Gives a gated network random biases, statistics and posteriors, and keeps it alive.

    Behind BatchNormalization, values are positive on average. Around 0 a deep random network is
    chaotic: it doubles rounding errors every few layers, which no trained network does.

    Args:
        model: a network with gates; it is changed.
        batch: what it is called with, and what it is then to be compared on.
        seed: of everything random.
        drop: the share of each gate's units that fall below its rule; one unit stays.
    """
    rng = np.random.default_rng(seed)
    _randomise_vectors(model, rng)
    for gate in find_gates(model):
        randomise_gate(gate, rng, drop)
    _send_through(trace(model), batch, rng)


def _randomise_vectors(model: keras.Model, rng: np.random.Generator) -> None:
    for layer in model.layers:
        for name in ("gamma", "beta", "bias"):
            variable = getattr(layer, name, None)
            if not isinstance(variable, keras.Variable):
                continue
            if name == "gamma":
                variable.assign(rng.uniform(0.5, 1.5, variable.shape))
            else:
                shifts = isinstance(layer, layers.BatchNormalization)
                variable.assign(rng.normal(1.0 if shifts else 0, 0.3, variable.shape))


def randomise_gate(gate: SBPLayer, rng: np.random.Generator, drop: float) -> None:
    """Gives a gate random posteriors, a share of them below its rule; one unit stays."""
    dropped = rng.permutation(gate.units) < min(round(drop * gate.units), gate.units - 1)
    log_sigma = np.where(dropped, 3.0, rng.normal(-3, 0.5, gate.units))
    gate.set_posterior(rng.normal(-0.5, 0.3, gate.units), log_sigma)


def _send_through(program: Program, batch: Any, rng: np.random.Generator) -> None:
    """Runs the program, and adjusts each layer before its first call."""
    values = inputs_of(program, batch)
    readers = Counter(tensor for op in program.ops for tensor in op.inputs)
    seen: set[int] = set()
    for op in program.ops:
        if id(op.operation) not in seen:
            seen.add(id(op.operation))
            _adjust(op, values, rng)
        values.update(zip(op.outputs, call(op, values), strict=True))
        for tensor in op.inputs:
            readers[tensor] -= 1
            if not readers[tensor]:
                values.pop(tensor, None)


def _adjust(op: Op, values: dict[Tensor, Any], rng: np.random.Generator) -> None:
    layer = op.operation
    if isinstance(layer, layers.BatchNormalization):
        _set_statistics(layer, keras.ops.convert_to_numpy(values[op.inputs[0]]), rng)
    elif hasattr(layer, "kernel") and hasattr(layer, "activation"):
        _scale_kernel(layer, op, values)


def _set_statistics(
    layer: layers.BatchNormalization, x: np.ndarray, rng: np.random.Generator
) -> None:
    """Those of the batch, with an error; a channel that does not vary gets a small variance."""
    axes = tuple(a for a in range(x.ndim) if a != layer.axis % x.ndim)
    mean, variance = x.mean(axes, dtype=np.float64), x.var(axes, dtype=np.float64)
    variance = np.maximum(variance, variance.mean()) + 1e-6
    layer.moving_mean.assign(mean + 0.1 * np.sqrt(variance) * rng.normal(size=mean.shape))
    layer.moving_variance.assign(variance * rng.uniform(0.7, 1.4, variance.shape))


def _scale_kernel(layer: Any, op: Op, values: dict[Tensor, Any]) -> None:
    """Examples then differ by about 1 before the activation."""
    activation, layer.activation = layer.activation, keras.activations.linear
    y = keras.ops.convert_to_numpy(call(op, values)[0])
    layer.activation = activation
    spread = np.sqrt(y.var(axis=0, dtype=np.float64).mean())
    if spread > 0:
        layer.kernel.assign(layer.kernel / spread)
