"""Backbones of KerasHub, from their configuration: heads and feed-forward units go, exactly."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_sbp
from benchmarks.architectures import hub
from benchmarks.architectures.catalogue import Architecture
from benchmarks.architectures.measure import (
    TOLERANCE,
    measure,
    outputs,
    relative_error,
    shortcomings,
)
from benchmarks.architectures.random_state import randomise
from keras_sbp.layers import find_gates
from keras_sbp.pruning import prune

pytestmark = pytest.mark.keras_hub

BACKBONES = {
    "BERT": Architecture("BERT", hub.bert, hub.tokens),
    "ViT": Architecture("ViT", hub.vit),
    "ResNet": Architecture("ResNet", hub.resnet),
    "MobileNet": Architecture("MobileNet", hub.mobilenet),
}


@pytest.mark.tensorflow  # JAX compiles every call of every shape, which takes minutes
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", BACKBONES)
def test_prunes_exactly(name: str, dtype: str) -> None:
    row = measure(BACKBONES[name], dtype=dtype, litert=False)
    assert shortcomings(row) == []


@pytest.mark.parametrize("name", ["BERT", "ViT"])
def test_dead_heads_and_feed_forward_units_are_gone(name: str) -> None:
    backbone = BACKBONES[name]
    gated = keras_sbp.insert_sbp(backbone.build())
    batch = backbone.inputs(gated, 4, np.random.default_rng(0))
    randomise(gated, batch, seed=0)
    kept = {gate.name: int(gate.keep().sum()) for gate in find_gates(gated)}
    heads = [n for gate, n in zip(find_gates(gated), kept.values(), strict=True) if gate.units == 4]
    assert heads and set(heads) == {2}
    small, _ = prune(gated, verify=False)
    assert relative_error(outputs(gated, batch), outputs(small, batch)) <= 1e-5
    einsums = [layer for layer in small.layers if isinstance(layer, keras.layers.EinsumDense)]
    shapes = {layer.name.rpartition("_")[-1]: layer.kernel.shape for layer in einsums}
    assert shapes["query"] == shapes["key"] == shapes["value"] == (64, 2, 16)
    assert shapes["output"] == (2, 16, 64)
    wide = [n for gate, n in zip(find_gates(gated), kept.values(), strict=True) if gate.units > 4]
    dense = [layer.units for layer in small.layers if isinstance(layer, keras.layers.Dense)]
    assert sorted(wide) == sorted(n for n in dense if n != 64)


@pytest.mark.tensorflow
def test_a_model_of_short_sentences_is_verified() -> None:
    import keras_hub

    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=50,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=16,
    )
    gated = keras_sbp.insert_sbp(backbone, verbose=0)
    for gate in find_gates(gated):
        gate.set_posterior(0.0, np.where(np.arange(gate.units) % 2, 4.0, -5.0))
    _, report = prune(gated)
    assert report.macs_after < report.macs_before
    assert report.max_abs_error is not None
    assert report.variation > 0.01
    compared = {each.name: each for each in report.compared}
    assert compared["token_ids"].values == "integers 0 to 49"
    assert all(each.shape[1] <= 16 for each in report.compared)
