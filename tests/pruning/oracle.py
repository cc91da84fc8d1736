"""The oracle of all pruning tests: same function, checked on inputs that matter."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_sbp._keras import functional_view, input_structure
from keras_sbp.comparing.drawing import Slot, draw
from keras_sbp.layers import SBPLayer, find_gates
from keras_sbp.pruning import prune
from keras_sbp.pruning.report import PruneReport

TOLERANCE = {"float32": 1e-5, "float64": 1e-9}


class NothingToCompareError(AssertionError):
    """The outputs do not depend on the input, so agreement would show nothing."""


def random_inputs(model: keras.Model, seed: int = 0) -> Any:
    """Returns one random batch in the structure that the model is called with."""
    structure = input_structure(functional_view(model))
    slots = [Slot(x.name, tuple(x.shape), x.dtype) for x in keras.tree.flatten(structure)]
    batch = draw(slots, examples=8, size=64, seed=seed)
    return keras.tree.pack_sequence_as(structure, batch.arrays)


def gate(**kwargs) -> SBPLayer:
    """A gate that may be called in training mode."""
    return SBPLayer(num_samples=100, **kwargs)


def randomise(model: keras.Model, seed: int = 0, drop: float = 0.4) -> keras.Model:
    """Random weights that keep signals alive, and random gates that drop a share of units."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        shape = variable.shape
        if variable.path.endswith("recurrent_kernel"):
            value = rng.normal(0, np.sqrt(1 / np.prod(shape[:-1])), shape)
            if rng.random() < 0.5:  # each unit reads itself alone, so that others can go
                value *= np.tile(np.eye(shape[-2]), shape[-1] // shape[-2])
        elif variable.path.endswith("kernel"):
            fan_in = max(1, np.prod(shape[:-1]))
            value = rng.normal(0, np.sqrt(3 / fan_in), shape)
        elif variable.path.endswith("variance"):
            value = rng.uniform(0.5, 1.5, shape)
        elif variable.path.endswith(("gamma", "scale", "layer_scale/variable")):
            value = rng.uniform(1.0, 2.0, shape)
        elif variable.path.endswith("alpha"):
            value = rng.uniform(0.1, 0.5, shape)
        elif variable.path.endswith("embeddings"):
            value = rng.normal(0, 1, shape)
        elif variable.path.endswith(("bias", "beta", "mean")):
            value = rng.normal(0, 0.5, shape)
        else:
            continue
        variable.assign(value)
    for each in find_gates(model):
        # A gate over a whole tensor would too often leave nothing to compare.
        dropped = rng.random(each.units) < (drop if each.units > 1 else drop / 4)
        each.set_posterior(
            rng.normal(-0.5, 0.3, each.units),
            np.where(dropped, 3.0, rng.normal(-3, 0.5, each.units)),
        )
    return model


def drop_units(each: SBPLayer, units: list[int]) -> None:
    """Makes a gate drop exactly these units; the others are multiplied by different numbers."""
    log_sigma = np.full(each.units, -3.0)
    log_sigma[units] = 3.0
    each.set_posterior(np.linspace(-0.9, -0.1, each.units), log_sigma)


def gated_sequential(*parts: keras.layers.Layer, shape: tuple = (5, 6)) -> keras.Model:
    """Each gate drops every second unit."""
    model = randomise(keras.Sequential([keras.Input(shape), *parts]), drop=0.0)
    for each in find_gates(model):
        drop_units(each, list(range(1, each.units, 2)))
    return model


def count_without_gates(model: keras.Model) -> int:
    return model.count_params() - sum(g.count_params() for g in find_gates(model))


def dtype_of(model: keras.Model) -> str:
    return keras.backend.standardize_dtype(model.outputs[0].dtype)


def assert_same_function(model: keras.Model) -> tuple[keras.Model, PruneReport]:
    """Prunes, and compares with the model's own inference call on its own decisions.

    The package verifies too; this does not rely on it.
    """
    small, report = prune(model, verify=False)
    inputs = random_inputs(model, seed=1)
    expected = keras.tree.flatten(model(inputs, training=False))
    received = keras.tree.flatten(small(inputs, training=False))
    tolerance = TOLERANCE[dtype_of(model)]
    for x, y in zip(expected, received, strict=True):
        x, y = keras.ops.convert_to_numpy(x), keras.ops.convert_to_numpy(y)
        assert x.shape == y.shape and x.dtype == y.dtype
        if np.ptp(x, axis=0).max() < 1e-3:
            raise NothingToCompareError(f"{np.ptp(x, axis=0).max()}")
        assert np.abs(x - y).max() <= tolerance * np.abs(x).max()
    assert not find_gates(small)
    for layer in small.layers:
        assert not isinstance(layer, keras.layers.Layer) or type(layer).__module__.startswith(
            "keras.src."
        )
    return small, report
