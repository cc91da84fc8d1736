"""insert_sbp on networks of keras.applications: which gates, and that MACs fall.

`python -m benchmarks.architectures` does it for all of them.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_sbp
from keras_sbp.layers import find_gates
from tests.insertion.gate_map import gate_map
from tests.pruning.oracle import randomise

MOBILENET_V2 = (
    {"Conv1_gate": ["expanded_conv_depthwise_relu"]}
    | {"expanded_conv_project_gate": ["expanded_conv_project_BN"]}
    | {f"block_{k}_expand_gate": [f"block_{k}_depthwise_relu"] for k in range(1, 17)}
    | {"block_16_project_gate": ["block_16_project_BN"], "Conv_1_gate": ["out_relu"]}
)
# The streams that several blocks write, by the first and the last of them.
MOBILENET_V2_STREAMS = [(1, 2), (3, 5), (6, 9), (10, 12), (13, 15)]

RESNET50 = {"conv1_conv_gate": ["conv1_relu"]} | {
    f"conv{stage}_block{block}_{k}_conv_gate": [f"conv{stage}_block{block}_{k}_relu"]
    for stage, blocks in enumerate([3, 4, 6, 3], 2)
    for block in range(1, blocks + 1)
    for k in (1, 2)
}


def test_mobilenet_v2() -> None:
    model = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), classes=10)
    gated = keras_sbp.insert_sbp(model)
    assert gate_map(gated) == MOBILENET_V2
    _, report = keras_sbp.prune(randomise(gated, drop=0.4))
    assert report.macs_after <= 0.7 * report.macs_before

    tied = keras_sbp.insert_sbp(model, tie_residual=True, kl_weight="macs")
    streams = {
        f"block_{first}_project_gate": [f"block_{k}_project_BN" for k in range(first, last + 1)]
        for first, last in MOBILENET_V2_STREAMS
    }
    assert gate_map(tied) == MOBILENET_V2 | streams
    weights = np.concatenate([np.full(g.units, g.kl_weight) for g in find_gates(tied)])
    assert weights.mean() == pytest.approx(1.0)
    assert weights.min() > 0


def test_resnet50() -> None:
    model = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=10)
    assert gate_map(keras_sbp.insert_sbp(model)) == RESNET50

    branches = gate_map(keras_sbp.insert_sbp(model, gate="branch"))
    assert branches == {
        f"conv{stage}_block{block}_3_conv_branch_gate": [f"conv{stage}_block{block}_3_bn"]
        for stage, blocks in enumerate([3, 4, 6, 3], 2)
        for block in range(1, blocks + 1)
    }

    tied = gate_map(keras_sbp.insert_sbp(model, tie_residual=True))
    streams = {name: places for name, places in tied.items() if name not in RESNET50}
    assert [len(places) for places in streams.values()] == [4, 5, 7, 4]
    for stage, places in enumerate(streams.values(), 2):
        assert f"conv{stage}_block1_0_bn" in places
        assert f"conv{stage}_block3_3_bn" in places
