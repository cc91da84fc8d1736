"""The networks of the demonstrations, how they are trained, and what must come out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
from keras import layers

from keras_sbp.demo import data
from keras_sbp.layers import SBPLayer


@dataclasses.dataclass(frozen=True)
class Targets:
    """What a demonstration must reach; `None` is not checked.

    Attributes:
        accuracy_loss: Most points of test accuracy that pruning may cost.
        test_error: Largest test error of the pruned file, in percent.
        macs_ratio: Least factor by which the MACs shrink.
        bytes_ratio: Least factor by which the `.tflite` file shrinks.
        cpu_seconds: Most processor time that training both networks may take. On an otherwise
            idle machine it is at least the wall time, and unlike that, it does not depend on
            what else is running.
    """

    accuracy_loss: float | None = None
    test_error: float | None = None
    macs_ratio: float | None = None
    bytes_ratio: float | None = None
    cpu_seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One demonstration.

    Attributes:
        name: Its name on the command line.
        load: Reads the data, given the folder from `--data`.
        build: Makes the network, with gates if its argument is true.
        baseline_epochs: Epochs of the network without gates.
        gated_epochs: Epochs of the gated network.
        warmup_epochs: Epochs in which the weight of the KL rises to 1.
        batch_size: Examples per step.
        learning_rate: Adam's first step size; it falls to 0 along a half cosine.
        targets: What must come out.
        quiet: One progress bar per network in place of Keras's one per epoch.
    """

    name: str
    load: Callable[[str | None], data.Dataset]
    build: Callable[[bool], keras.Model]
    baseline_epochs: int
    gated_epochs: int
    warmup_epochs: int
    batch_size: int
    learning_rate: float
    targets: Targets
    quiet: bool = False


def small_convnet(gated: bool) -> keras.Model:
    """Two convolutions and a dense layer for 8x8 images.

    The weight of the KL is above 1, the evidence lower bound, in favour of a smaller network.
    """
    return _network(
        gated,
        keras.Input((8, 8, 1), name="image"),
        layers.Conv2D(32, 3, activation="relu", name="conv1"),
        SBPLayer(kl_weight=3.0, name="gate_conv1"),
        layers.Conv2D(64, 3, activation="relu", name="conv2"),
        SBPLayer(kl_weight=3.0, name="gate_conv2"),
        layers.MaxPooling2D(name="pool"),
        layers.Flatten(name="flatten"),
        layers.Dense(128, activation="relu", name="dense"),
        SBPLayer(kl_weight=3.0, name="gate_dense"),
        layers.Dense(10, name="logits"),
    )


def lenet5(gated: bool) -> keras.Model:
    """LeNet-5-Caffe: 20 and 50 channels, 500 dense units.

    The KL of the gates on channels is weighted up. One such unit is worth many multiplications
    and, being seen at every position, costs the data loss dearly; at weight 1 hardly one goes.
    """
    return _network(
        gated,
        keras.Input((28, 28, 1), name="image"),
        layers.Conv2D(20, 5, activation="relu", name="conv1"),
        layers.MaxPooling2D(name="pool1"),
        SBPLayer(kl_weight=120.0, name="gate_conv1"),
        layers.Conv2D(50, 5, activation="relu", name="conv2"),
        layers.MaxPooling2D(name="pool2"),
        SBPLayer(kl_weight=60.0, name="gate_conv2"),
        layers.Flatten(name="flatten"),
        SBPLayer(kl_weight=4.0, name="gate_flat"),
        layers.Dense(500, activation="relu", name="dense"),
        SBPLayer(kl_weight=4.0, name="gate_dense"),
        layers.Dense(10, name="logits"),
    )


def _network(gated: bool, *stack: object) -> keras.Model:
    return keras.Sequential([part for part in stack if gated or not isinstance(part, SBPLayer)])


DIGITS = Recipe(
    name="digits",
    load=data.digits,
    build=small_convnet,
    baseline_epochs=40,
    gated_epochs=80,
    warmup_epochs=30,
    batch_size=32,
    learning_rate=2e-3,
    targets=Targets(accuracy_loss=1.0, macs_ratio=8.0, bytes_ratio=8.0, cpu_seconds=100.0),
    quiet=True,
)
MNIST = Recipe(
    name="mnist",
    load=data.mnist,
    build=lenet5,
    baseline_epochs=20,
    gated_epochs=50,
    warmup_epochs=0,
    batch_size=128,
    learning_rate=1e-3,
    targets=Targets(test_error=1.0, macs_ratio=8.0),
)
RECIPES = {recipe.name: recipe for recipe in (DIGITS, MNIST)}
