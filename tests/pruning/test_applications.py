"""A slice of the benchmark of architectures: gates in, prune, the same function, saved and loaded.

`python -m benchmarks.applications` does this for every network of keras.applications.
"""

from __future__ import annotations

import pytest

from benchmarks.architectures.catalogue import catalogue
from benchmarks.architectures.measure import measure, shortcomings

SLICE = [
    "MobileNetV2 without top",
    "MobileNetV3Small",
    "EfficientNetB0 without top",
    "ResNet50V2",
    "DenseNet121 without top",
    "ConvNeXtTiny",
    "Subclassed ResNet",
]


@pytest.mark.parametrize("name", SLICE)
def test_prunes_exactly(name: str) -> None:
    row = measure(catalogue()[name], litert=False)
    assert shortcomings(row) == []
    # What mixes units at the output is opaque, and costs nothing there.
    assert {each["reason"] for each in row["opaque"]} <= {SOFTMAX}
    assert row["units_kept"] < 0.65 * row["units"]


SOFTMAX = "activation 'softmax' is not known to act on each unit alone"


def test_says_what_a_network_did_not_get() -> None:
    row = {
        "dtype": "float32",
        "max_abs_error": 2e-4,
        "variation": 1e-3,
        "macs_before": 100,
        "macs_after": 71,
        "opaque": [],
        "other_layers": ["Mystery"],
        "reloaded_error": 1e-3,
        "litert": {"max_abs_error": 2e-4},
    }
    assert len(shortcomings(row)) == 6
    good = {
        "dtype": "float32",
        "max_abs_error": 1e-4,
        "variation": 1e-2,
        "macs_before": 100,
        "macs_after": 70,
        "opaque": [{"class": "Mystery"}],
        "other_layers": ["Mystery"],
        "reloaded_error": 0.0,
    }
    assert shortcomings(good) == []
