"""Where gates go in a residual network: inside blocks, on whole branches, along the stream.

The data are the 8x8 digits of scikit-learn, so nothing is downloaded.

    pip install ".[demo]"
    python examples/residual_network.py
"""

from __future__ import annotations

import argparse

import keras
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_sbp

# 1 is the evidence lower bound; more asks for a smaller network. A channel is seen at every
# position, so the data loss defends it harder than a dense unit.
KL_WEIGHT = 5.0


def block(x: keras.KerasTensor, name: str, stream: keras_sbp.SBPLayer) -> keras.KerasTensor:
    """One residual block, with the three kinds of gates that it can have."""
    channels = x.shape[-1]
    y = layers.Conv2D(channels, 3, padding="same", use_bias=False, name=f"{name}_conv1")(x)
    y = layers.BatchNormalization(name=f"{name}_norm1")(y)
    y = layers.ReLU(name=f"{name}_relu1")(y)
    # Behind normalisation and activation: a channel that goes is exactly 0 there, and so is the
    # zero padding that the next convolution adds around it.
    y = keras_sbp.SBPLayer(kl_weight=KL_WEIGHT, name=f"{name}_inner")(y)
    y = layers.Conv2D(channels, 3, padding="same", use_bias=False, name=f"{name}_conv2")(y)
    y = layers.BatchNormalization(name=f"{name}_norm2")(y)
    # One gate for the whole branch: where it goes, the block goes. It stands for as many channels
    # as the block has, and its KL is weighted like theirs together.
    y = keras_sbp.SBPLayer(axis=None, kl_weight=KL_WEIGHT * channels, name=f"{name}_branch")(y)
    x = layers.Add(name=f"{name}_add")([x, y])
    x = layers.ReLU(name=f"{name}_relu2")(x)
    # The stream keeps one width from block to block, so its channels share one gate: the same
    # layer object at each place.
    return stream(x)


def build() -> keras.Model:
    """A stem, three blocks and a classifier."""
    # The stream is met at four places, but its KL counts once.
    stream = keras_sbp.SBPLayer(kl_weight=KL_WEIGHT, name="stream")
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.BatchNormalization(name="stem_norm")(x)
    x = stream(layers.ReLU(name="stem_relu")(x))
    x = layers.MaxPooling2D(name="stem_pool")(x)
    for number in (1, 2, 3):
        x = block(x, f"block{number}", stream)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(10, name="logits")(x), name="residual")


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args()
    keras.utils.set_random_seed(0)

    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        x.reshape(-1, 8, 8, 1).astype("float32") / 16, y, test_size=0.2, stratify=y, random_state=0
    )

    model = build()
    model.compile(
        optimizer=keras.optimizers.Adam(3e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    monitor = keras_sbp.SNRMonitor()
    model.fit(
        x_train, y_train, batch_size=64, epochs=options.epochs, callbacks=[monitor], verbose=2
    )

    small, report = keras_sbp.prune(model)
    report.print()
    print("blocks that are left:", [layer.name for layer in small.layers if "_add" in layer.name])

    small.compile(loss=model.loss, metrics=["accuracy"])
    for name, each in {"gated": model, "pruned": small}.items():
        _, accuracy = each.evaluate(x_test, y_test, verbose=0)
        print(f"{name}: test accuracy {accuracy:.2%}")


if __name__ == "__main__":
    main()
