"""The networks that the benchmark prunes, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from benchmarks.architectures import hub
from benchmarks.architectures.subclassed import SubclassedResNet

WITHOUT_TOP = " without top"
CLASSES = 10
SIZES = (32, 48, 64, 71, 75, 96, 128, 160, 224, 331)
LITERT = ("MobileNetV2", "ResNet50", "EfficientNetB0", "ConvNeXtTiny")

Inputs = Callable[[keras.Model, int, np.random.Generator], Any]


def images(model: keras.Model, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns random images of different colours, with numbers from 0 to 255."""
    shape = (batch_size, *model.input_shape[1:])
    colours = rng.uniform(30, 225, (batch_size, 1, 1, shape[-1]))
    return np.clip(rng.normal(colours, 60, shape), 0, 255).astype("float32")


@dataclass(frozen=True)
class Architecture:
    """A network to prune.

    Attributes:
        name: in the table.
        build: makes it, with random weights.
        inputs: draws a batch for it.
        litert: whether it is exported, too.
    """

    name: str
    build: Callable[[], keras.Model]
    inputs: Inputs = images
    litert: bool = False


def catalogue() -> dict[str, Architecture]:
    """Returns every network of `keras.applications`, with its top and without, and a few more.

    Those of KerasHub are there if it is installed.
    """
    entries = [_application(name, top) for name in application_names() for top in (True, False)]
    entries.append(Architecture("Subclassed ResNet", _subclassed))
    if hub.INSTALLED:
        entries += [
            Architecture("KerasHub BERT", hub.bert, hub.tokens),
            Architecture("KerasHub ViT", hub.vit),
            Architecture("KerasHub ResNet", hub.resnet),
            Architecture("KerasHub MobileNet", hub.mobilenet),
        ]
    return {entry.name: entry for entry in entries}


def application_names() -> list[str]:
    """Returns the names of all networks in `keras.applications`."""
    functions = vars(keras.applications).items()
    return sorted(n for n, f in functions if callable(f) and "include_top" in _parameters(f))


def build_smallest(function: Callable[..., keras.Model], **options: Any) -> keras.Model:
    """Calls a function of `keras.applications` with the smallest images that it accepts."""
    for size in SIZES:
        try:
            return function(weights=None, input_shape=(size, size, 3), **options)
        except ValueError as error:
            refusal = error
    raise refusal


def _application(name: str, top: bool) -> Architecture:
    function = getattr(keras.applications, name)
    options = {"include_top": top} | ({"classes": CLASSES} if top else {})
    return Architecture(
        name if top else name + WITHOUT_TOP,
        lambda: build_smallest(function, **options),
        litert=top and name in LITERT,
    )


def _subclassed() -> keras.Model:
    model = SubclassedResNet(widths=(32, 64, 128), blocks=2, classes=CLASSES)
    model(np.zeros((1, 32, 32, 3), "float32"))
    return model


def _parameters(function: Callable) -> set[str]:
    return set(inspect.signature(function).parameters)
