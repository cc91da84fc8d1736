"""Gate a small network, train it, prune it, export it: the whole journey on one page.

The data are the 8x8 digits of scikit-learn, so nothing is downloaded.

    pip install ".[demo]"
    python examples/sequential_mlp.py
"""

from __future__ import annotations

import argparse
import pathlib

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_sbp


def build() -> keras.Model:
    """A gate on the 64 pixels, and one behind each hidden layer's activation."""
    return keras.Sequential(
        [
            keras.Input((64,), name="pixels"),
            keras_sbp.SBPLayer(name="gate_pixels"),
            keras.layers.Dense(256, activation="relu", name="hidden_1"),
            keras_sbp.SBPLayer(name="gate_1"),
            keras.layers.Dense(128, activation="relu", name="hidden_2"),
            keras_sbp.SBPLayer(name="gate_2"),
            keras.layers.Dense(10, name="logits"),
        ]
    )


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("digits_mlp.tflite"))
    options = parser.parse_args()
    keras.utils.set_random_seed(0)

    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        x.astype("float32") / 16, y, test_size=0.2, stratify=y, random_state=0
    )

    model = build()
    model.compile(
        optimizer=keras.optimizers.Adam(2e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        x_train,
        y_train,
        batch_size=64,
        epochs=options.epochs,
        verbose=2,
        # The monitor comes first: it tells the gates how large the data set is, and callbacks
        # behind it see its entries in the logs.
        callbacks=[keras_sbp.SNRMonitor(), keras_sbp.KLWarmup(options.epochs // 4)],
    )

    small, report = keras_sbp.prune(model)
    report.print()

    # evaluate() of the gated model already showed this number.
    small.compile(loss=model.loss, metrics=["accuracy"])
    for name, each in {"gated": model, "pruned": small}.items():
        _, accuracy = each.evaluate(x_test, y_test, verbose=0)
        print(f"{name}: test accuracy {accuracy:.2%}")

    exported = keras_sbp.export(small, options.out, overwrite=True)
    print(f"{exported.path}: {exported.bytes:,} bytes, operations {', '.join(exported.ops)}")


if __name__ == "__main__":
    main()
