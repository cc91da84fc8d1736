"""Random gated networks, one for every sequence of choices."""

from __future__ import annotations

import random
from typing import Any

import keras
from keras import layers

from tests.pruning.oracle import gate
from tests.pruning.random_steps import STEPS

ACTIVATIONS = [None, "relu", "gelu", "tanh", "sigmoid", "leaky_relu", "softplus", "relu6"]
INTERPOLATIONS = ["nearest", "bilinear", "bicubic"]


class Author:
    """Writes one network of 3 to 14 calls over the supported layers, with gates anywhere.

    Args:
        choices: makes all choices: Python's own generator, or one that Hypothesis controls.
    """

    def __init__(self, choices: random.Random) -> None:
        self.random = choices
        self.reusable: list[tuple[tuple, keras.Operation]] = []

    def one_of(self, options: list) -> Any:
        return self.random.choice(options)

    def chance(self, percent: int) -> bool:
        return self.random.randrange(100) < percent

    def count(self) -> int:
        return self.random.randint(3, 9)

    def write(self) -> keras.Model:
        inputs = [self.input() for _ in range(self.one_of([1, 1, 2]))]
        pool = list(inputs)
        for _ in range(self.random.randint(3, 14)):
            # Recent tensors are likelier, so that the network gets deep.
            x = pool[-1] if self.chance(85) else self.one_of(pool)
            pool.append(self.step(x, pool))
        outputs = [self.head(pool[-1])]
        if self.chance(25):
            outputs.append(self.head(self.one_of(pool)))
        return keras.Model(inputs, outputs)

    def input(self) -> keras.KerasTensor:
        kind = self.one_of(["image", "image", "sequence", "vector"])
        channels = self.count()
        shapes = {"image": (6, 5, channels), "sequence": (6, channels), "vector": (channels,)}
        return keras.Input(shapes[kind])

    def head(self, x: keras.KerasTensor) -> keras.KerasTensor:
        if len(x.shape) > 2:
            x = layers.Flatten()(x) if self.chance(50) else self.global_pool(x)
        if self.chance(40):
            x = gate()(x)
        # Linear: behind a softmax or tanh of large numbers, rounding would be compared with 1.
        return layers.Dense(64)(x)

    def step(self, x: keras.KerasTensor, pool: list) -> keras.KerasTensor:
        if self.chance(25):
            x = self.reuse(x)
        makers = [self.linear, self.linear, self.unit_wise, self.gate, self.gate, self.merge]
        if len(x.shape) == 4:
            makers += [self.constant_at_borders, self.constant_at_borders]
        if len(x.shape) > 2:
            makers += [self.spatial, self.regroup]
        else:
            makers += [self.split]
        if self.chance(8):
            makers = [self.opaque]
        if len(x.shape) in STEPS and self.chance(40):
            return self.one_of(STEPS[len(x.shape)])(self, x)
        maker = self.one_of(makers)
        y = maker(x, pool) if maker == self.merge else maker(x)
        return self.gate(y) if maker == self.linear and self.chance(65) else y

    def reuse(self, x: keras.KerasTensor) -> keras.KerasTensor:
        fitting = [layer for shape, layer in self.reusable if shape == tuple(x.shape)]
        return self.one_of(fitting)(x) if fitting else x

    def remember(self, layer: keras.Operation, x: keras.KerasTensor) -> keras.KerasTensor:
        self.reusable.append((tuple(x.shape), layer))
        return layer(x)

    def constant_at_borders(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """What is easiest to get wrong: a removed unit that is no 0 meets zero padding."""
        x = self.shift(gate()(layers.Conv2D(self.count(), 1)(x)))
        reader = self.one_of(
            [
                layers.Conv2D(self.count(), 3, padding="same"),
                layers.DepthwiseConv2D(3, padding="same"),
                layers.SeparableConv2D(self.count(), 3, padding="same"),
                layers.ZeroPadding2D(1),
            ]
        )
        return self.remember(reader, x)

    # Families of layers

    def linear(self, x: keras.KerasTensor) -> keras.KerasTensor:
        rank = len(x.shape)
        if rank == 2 or self.chance(25):
            return self.remember(self.dense(), x)
        common = {
            "padding": self.one_of(["same", "valid"] if min(x.shape[1:-1]) >= 3 else ["same"]),
            "use_bias": self.chance(70),
            "activation": self.one_of(ACTIVATIONS),
        }
        kernel = self.one_of([1, 2, 3])
        if rank == 3:
            if self.chance(20):
                common["padding"] = "causal"
            return self.remember(layers.Conv1D(self.count(), kernel, **common), x)
        kind = self.one_of(["conv", "conv", "depthwise", "separable", "nested"])
        if kind == "depthwise":
            return self.remember(
                layers.DepthwiseConv2D(kernel, depth_multiplier=self.one_of([1, 2]), **common), x
            )
        if kind == "separable":
            multiplier = self.one_of([1, 2])
            return self.remember(
                layers.SeparableConv2D(self.count(), kernel, depth_multiplier=multiplier, **common),
                x,
            )
        if kind == "nested":
            block = keras.Sequential(
                [
                    layers.Conv2D(self.count(), kernel, padding="same"),
                    layers.BatchNormalization(),
                    layers.ReLU(),
                    gate(),
                ]
            )
            return self.remember(block, x)
        steps = {"strides": self.one_of([1, 2])}
        if steps["strides"] == 1 and min(x.shape[1:-1]) >= 5:
            steps["dilation_rate"] = self.one_of([1, 2])
        return self.remember(layers.Conv2D(self.count(), kernel, **steps, **common), x)

    def dense(self) -> keras.layers.Dense:
        return layers.Dense(
            self.count(), activation=self.one_of(ACTIVATIONS), use_bias=self.chance(70)
        )

    def unit_wise(self, x: keras.KerasTensor) -> keras.KerasTensor:
        last = x.shape[-1]
        layer = self.one_of(
            [
                lambda: layers.BatchNormalization(scale=self.chance(70), center=self.chance(70)),
                lambda: layers.BatchNormalization(axis=self.one_of([-1, len(x.shape) - 1])),
                lambda: layers.Activation(self.one_of(ACTIVATIONS[1:])),
                lambda: layers.ReLU(max_value=self.one_of([None, 1.5])),
                lambda: layers.LeakyReLU(),
                lambda: layers.ELU(),
                lambda: layers.Dropout(0.3),
                lambda: layers.GaussianNoise(0.3),
                lambda: layers.Rescaling(0.7, offset=self.one_of([0.0, 0.2])),
                lambda: layers.Rescaling([0.5 + 0.1 * i for i in range(last)]),
                lambda: layers.Normalization(
                    mean=[0.1 * i for i in range(last)], variance=[1.0 + i for i in range(last)]
                ),
                lambda: layers.Identity(),
            ]
        )()
        return self.remember(layer, x)

    def gate(self, x: keras.KerasTensor) -> keras.KerasTensor:
        axis = self.one_of([-1] * 10 + [1, ()])
        x = self.remember(gate(axis=axis), x)
        return self.shift(x) if self.chance(40) else x

    def shift(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Turns the zeros of removed units into other constants."""
        shifts = [layers.BatchNormalization(), layers.Activation("softplus"), layers.ReLU()]
        return self.remember(self.one_of(shifts), x)

    def merge(self, x: keras.KerasTensor, pool: list) -> keras.KerasTensor:
        same_rank = [y for y in pool if len(y.shape) == len(x.shape)]
        fitting = [y for y in same_rank if y.shape[:-1] == x.shape[:-1]]
        if self.chance(40) and fitting:
            others = [self.one_of(fitting) for _ in range(self.one_of([1, 2]))]
            return layers.Concatenate()([x, *others])
        stackable = [y for y in same_rank if y.shape[2:] == x.shape[2:]]
        if self.chance(15) and len(x.shape) > 2:
            return layers.Concatenate(axis=1)([x, self.one_of(stackable)])
        if len(x.shape) == 4 and self.chance(30):
            return self.squeeze_excite(x)
        equal = [y for y in fitting if y.shape == x.shape]
        y = self.one_of(equal) if equal and self.chance(70) else self.like(x)
        operator = self.one_of(
            [
                layers.Add,
                layers.Add,
                layers.Subtract,
                layers.Multiply,
                layers.Average,
                layers.Maximum,
                layers.Minimum,
            ]
        )
        return operator()([x, y] if self.chance(50) else [y, x])

    def like(self, x: keras.KerasTensor) -> keras.KerasTensor:
        y = layers.Dense(x.shape[-1], activation=self.one_of(ACTIVATIONS))(x)
        return gate(axis=self.one_of([-1, -1, ()]))(y) if self.chance(60) else y

    def squeeze_excite(self, x: keras.KerasTensor) -> keras.KerasTensor:
        squeezed = layers.GlobalAveragePooling2D(keepdims=self.chance(50))(x)
        if len(squeezed.shape) == 2:
            squeezed = layers.Reshape((1, 1, -1))(squeezed)
        squeezed = layers.Conv2D(2, 1, activation="relu")(squeezed)
        if self.chance(50):
            squeezed = gate()(squeezed)
        weight = layers.Conv2D(x.shape[-1], 1, activation="sigmoid")(squeezed)
        return layers.Multiply()([x, weight])

    def spatial(self, x: keras.KerasTensor) -> keras.KerasTensor:
        if len(x.shape) != 4:
            options = [lambda: layers.MaxPooling1D(2, padding="same"), layers.UpSampling1D]
            options += [layers.ZeroPadding1D, lambda: layers.AveragePooling1D(2, padding="same")]
            return self.one_of(options)()(x)
        options = [
            lambda: layers.MaxPooling2D(2, padding="same"),
            lambda: layers.AveragePooling2D(2, padding="same"),
            lambda: layers.ZeroPadding2D(1),
            lambda: layers.UpSampling2D(2, interpolation=self.one_of(INTERPOLATIONS)),
            layers.Identity,
        ]
        if min(x.shape[1:-1]) >= 3:
            options.append(lambda: layers.Cropping2D(1))
        return self.one_of(options)()(x)

    def regroup(self, x: keras.KerasTensor) -> keras.KerasTensor:
        if len(x.shape) == 4 and self.chance(50):
            return layers.Reshape((-1, x.shape[-1]))(x)
        return layers.Flatten()(x) if self.chance(50) else self.global_pool(x)

    def split(self, x: keras.KerasTensor) -> keras.KerasTensor:
        size = x.shape[-1]
        parts = [n for n in (2, 3, 5) if size % n == 0]
        if not parts:
            return layers.Reshape((1, 1, size))(x)
        return layers.Reshape((size // parts[0], parts[0]))(x)

    def global_pool(self, x: keras.KerasTensor) -> keras.KerasTensor:
        rank = len(x.shape) - 2
        kind = self.one_of(["Max", "Average"])
        return getattr(layers, f"Global{kind}Pooling{rank}D")()(x)

    def opaque(self, x: keras.KerasTensor) -> keras.KerasTensor:
        options = [lambda: layers.SpectralNormalization(layers.Dense(self.count()))]
        if len(x.shape) == 3:
            options.append(lambda: layers.RNN([layers.GRUCell(3), layers.SimpleRNNCell(3)]))
        return self.one_of(options)()(x)
