"""A slice of the benchmark of architectures: gates in, prune, the same function, saved and loaded.

`python -m benchmarks.applications` does this for every network of keras.applications. Here some of
them are whole, and others have fewer blocks than any that Keras offers by name.
"""

from __future__ import annotations

import pytest
from keras.src.applications.convnext import ConvNeXt
from keras.src.applications.densenet import DenseNet
from keras.src.applications.efficientnet import EfficientNet
from keras.src.applications.efficientnet_v2 import DEFAULT_BLOCKS_ARGS, EfficientNetV2
from keras.src.applications.nasnet import NASNet
from keras.src.applications.resnet import ResNet, stack_residual_blocks_v1, stack_residual_blocks_v2

from benchmarks.architectures.catalogue import Architecture, catalogue
from benchmarks.architectures.measure import measure, shortcomings

SMALL = {"weights": None, "input_shape": (32, 32, 3), "classes": 10}
MINIATURES = {
    "ConvNeXt": lambda: ConvNeXt([1, 2, 1, 1], [24, 48, 96, 192], **SMALL),
    "DenseNet": lambda: DenseNet([2, 2, 2, 2], **SMALL),
    "EfficientNet": lambda: EfficientNet(0.5, 0.4, 32, **SMALL),
    "EfficientNetV2": lambda: EfficientNetV2(
        0.5, 0.4, 32, blocks_args=DEFAULT_BLOCKS_ARGS["efficientnetv2-b0"], **SMALL
    ),
    "NASNet": lambda: NASNet(penultimate_filters=192, num_blocks=1, stem_block_filters=16, **SMALL),
    "ResNet": lambda: ResNet(two_stages(stack_residual_blocks_v1), False, True, **SMALL),
    "ResNetV2": lambda: ResNet(two_stages(stack_residual_blocks_v2), True, True, **SMALL),
}
WHOLE = ["MobileNetV2", "MobileNetV3Small", "Subclassed ResNet"]

# JAX compiles every call of every shape, so two networks must do there.
UNDER_JAX = ("ResNet", "Subclassed ResNet")

# The others are run by `make test-stress`.
SHORTEST = "ResNetV2"


def marks(name: str) -> list[pytest.MarkDecorator]:
    found = [] if name in UNDER_JAX else [pytest.mark.tensorflow]
    return found if name == SHORTEST else [*found, pytest.mark.stress]


NETWORKS = [Architecture(name, build) for name, build in MINIATURES.items()]
NETWORKS += [catalogue()[name] for name in WHOLE]
CASES = [pytest.param(n, id=n.name, marks=marks(n.name)) for n in NETWORKS]

SOFTMAX = "activation 'softmax' is not known to act on each unit alone"


def two_stages(stack):
    return lambda x: stack(stack(x, 32, 2, stride1=1, name="one"), 64, 2, name="two")


@pytest.mark.parametrize("network", CASES)
def test_prunes_exactly(network: Architecture) -> None:
    row = measure(network, litert=False)
    assert shortcomings(row) == []
    # What mixes units at the output is opaque, and costs nothing there.
    assert {each["reason"] for each in row["opaque"]} <= {SOFTMAX}
    assert row["units_kept"] < 0.65 * row["units"]


@pytest.mark.stress
@pytest.mark.tensorflow
def test_the_rest_is_rounding() -> None:
    row = measure(catalogue()["MobileNetV2"], dtype="float64")
    assert row["max_abs_error"] < 1e-11


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
