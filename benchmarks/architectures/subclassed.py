"""A residual network that is written as subclasses, with a `call` of its own at every level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops


class ConvNormAct(layers.Layer):
    """Convolution, BatchNormalization, and ReLU if wanted."""

    def __init__(
        self, filters: int, size: int, strides: int = 1, relu: bool = True, **options: Any
    ) -> None:
        super().__init__(**options)
        self.convolution = layers.Conv2D(
            filters, size, strides, padding="same", use_bias=False, name="convolution"
        )
        self.norm = layers.BatchNormalization(name="norm")
        self.relu = relu

    def call(self, x: Any) -> Any:
        """One after the other."""
        x = self.norm(self.convolution(x))
        return ops.relu(x) if self.relu else x


class Block(layers.Layer):
    """Two convolutions and a shortcut."""

    def __init__(self, filters: int, strides: int, **options: Any) -> None:
        super().__init__(**options)
        self.filters, self.strides = filters, strides
        self.first = ConvNormAct(filters, 3, strides, name="first")
        self.second = ConvNormAct(filters, 3, relu=False, name="second")
        self.shortcut = None

    def build(self, shape: tuple) -> None:
        """The shortcut has weights where the shape changes."""
        if self.strides > 1 or shape[-1] != self.filters:
            self.shortcut = ConvNormAct(self.filters, 1, self.strides, False, name="shortcut")
        self.built = True

    def call(self, x: Any) -> Any:
        """The sum of both branches."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return ops.relu(self.second(self.first(x)) + shortcut)


class SubclassedResNet(keras.Model):
    """A residual network for small images.

    Args:
        widths: filters of each stage; each stage but the first halves the image.
        blocks: blocks per stage.
        classes: outputs.
    """

    def __init__(self, widths: Sequence[int], blocks: int, classes: int, **options: Any) -> None:
        super().__init__(**options)
        self.stem = ConvNormAct(widths[0], 3, name="stem")
        self.stages = [
            Block(width, 2 if i and not j else 1, name=f"stage_{i}_block_{j}")
            for i, width in enumerate(widths)
            for j in range(blocks)
        ]
        self.head = layers.Dense(classes, name="head")

    def call(self, images: Any) -> Any:
        """Logits."""
        x = self.stem(images)
        for block in self.stages:
            x = block(x)
        return self.head(ops.mean(x, axis=(1, 2)))
