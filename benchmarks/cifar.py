"""CIFAR-10 and a plain convolutional network for it: `python -m benchmarks.cifar --data FOLDER`.

The network (six convolutions with BatchNormalization, 22 million multiply-accumulates) is trained
once and kept in a folder; an interrupted training goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

EPOCHS = 14
BATCH_SIZE = 128
LEARNING_RATE = 2e-3
WIDTHS = (24, 24, 48, 48, 96, 96)


def load(folder: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns standardised images and labels for training, and the same for testing.

    Args:
        folder: holds `cifar10.npz`; None means the folder that KERAS_SBP_DATA names, and without
            that, the download of `keras.datasets`.
    """
    folder = folder or os.environ.get("KERAS_SBP_DATA")
    if folder is None:
        (x, y), (x_test, y_test) = keras.datasets.cifar10.load_data()
    else:
        path = pathlib.Path(folder) / "cifar10.npz"
        if not path.exists():
            raise SystemExit(
                f"CIFAR-10 not found: expected the arrays x_train, y_train, x_test, y_test (uint8) "
                f"in '{path}'. Name its folder with --data or KERAS_SBP_DATA."
            )
        with np.load(path) as file:
            x, y, x_test, y_test = (
                file[name] for name in ("x_train", "y_train", "x_test", "y_test")
            )
    return _standardised(x), y.ravel(), _standardised(x_test), y_test.ravel()


def network() -> keras.Model:
    """Returns the untrained network."""
    image = x = keras.Input((32, 32, 3), name="image")
    for number, width in enumerate(WIDTHS, 1):
        x = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"conv{number}")(x)
        x = layers.BatchNormalization(name=f"bn{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(x)
        if number % 2 == 0:
            x = layers.MaxPooling2D(name=f"pool{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(128, activation="relu", name="dense")(layers.Dropout(0.3, name="drop")(x))
    return keras.Model(image, layers.Dense(10, name="logits")(x), name="cifar_net")


def trained(folder: pathlib.Path, data: str | None, seed: int = 0) -> keras.Model:
    """Returns the trained network from a folder, after training it if it is not there."""
    finished = folder / "cifar_net.keras"
    if finished.exists():
        return keras.saving.load_model(finished)
    x, y, x_test, y_test = load(data)
    keras.utils.set_random_seed(seed)
    model = network()
    steps = EPOCHS * -(-len(x) // BATCH_SIZE)
    rate = keras.optimizers.schedules.CosineDecay(
        1e-4, steps, warmup_target=LEARNING_RATE, warmup_steps=steps // 10
    )
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.fit(
        FlippedImages(x, y, seed),
        epochs=EPOCHS,
        validation_data=(x_test, y_test),
        callbacks=[keras.callbacks.BackupAndRestore(folder / "backup")],
        verbose=2,
    )
    model.save(finished)
    return model


class FlippedImages(keras.utils.PyDataset):
    """Batches in random order, half of the images mirrored and all shifted by up to 3 pixels."""

    def __init__(self, x: np.ndarray, y: np.ndarray, seed: int) -> None:
        super().__init__()
        self.x, self.y, self.rng = x, y, np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self.x) // BATCH_SIZE)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.order[number * BATCH_SIZE : (number + 1) * BATCH_SIZE]
        x = self.x[chosen]
        mirrored = self.rng.random(len(x)) < 0.5
        x[mirrored] = x[mirrored, :, ::-1]
        return np.roll(x, self.rng.integers(-3, 4, 2), (1, 2)), self.y[chosen]

    def on_epoch_end(self) -> None:
        """Shuffles."""
        self.order = self.rng.permutation(len(self.x))


def _standardised(images: np.ndarray) -> np.ndarray:
    return ((images.astype("float32") - 120.0) / 64.0).astype("float32")


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains the network if need be, and prints its test accuracy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="folder with cifar10.npz")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/cifar"))
    options = parser.parse_args(arguments)
    model = trained(options.folder, options.data)
    _, _, x_test, y_test = load(options.data)
    print(f"test accuracy {model.evaluate(x_test, y_test, verbose=0)[1]:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
