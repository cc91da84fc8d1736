"""Pruned, then quantised with training, or clustered: LeNet-5 on MNIST, step by step.

Needs mnist.npz in a folder (arrays x_train, y_train, x_test, y_test), and the extra [tfmot].

    pip install ".[tfmot]"
    python -m keras_sbp demo --dataset mnist --data FOLDER --out runs/mnist    # trains the networks
    python examples/tfmot/quantisation_aware_training.py --data FOLDER --networks runs/mnist
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import pathlib
import tempfile

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from rich.console import Console
from rich.table import Table

import keras_sbp
from keras_sbp.integrations.tfmot import import_tfmot, quantize_model, to_tf_keras

CLUSTERS = 16
QUANTIZATIONS = (None, "float16", "dynamic_int8", "int8")


def main() -> None:
    options = _options()
    with np.load(pathlib.Path(options.data, "mnist.npz")) as file:
        x, y, x_test, y_test = (file[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    x, x_test = (images[..., None].astype("float32") / 255.0 for images in (x, x_test))
    networks = pathlib.Path(options.networks)
    whole = keras.saving.load_model(networks / "baseline.keras", compile=False)
    small, _ = keras_sbp.prune(keras.saving.load_model(networks / "gated.keras", compile=False))
    with tempfile.TemporaryDirectory() as folder:
        files = {"not pruned, float32": pathlib.Path(folder, "whole.tflite")}
        keras_sbp.export(whole, files["not pruned, float32"])
        for quantization in QUANTIZATIONS:
            name = quantization or "float32"
            files[f"pruned, {name}"] = path = pathlib.Path(folder, f"{name}.tflite")
            images = x[:500] if quantization == "int8" else None
            keras_sbp.export(small, path, quantization=quantization, calibration_data=images)
        for name, model in trained_further(small, x, y, options.epochs).items():
            files[name] = pathlib.Path(folder, f"{len(files)}.tflite")
            files[name].write_bytes(to_tflite(model, quantised="int8" in name))
        rows = measured(files, x_test, y_test)
    show(rows)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps({"rows": rows}, indent=1) + "\n")


def trained_further(
    small: keras.Model, x: np.ndarray, y: np.ndarray, epochs: int
) -> dict[str, tf_keras.Model]:
    """Quantisation-aware training, and clustered weights."""
    aware = trained(quantize_model(to_tf_keras(small)), x, y, epochs)
    clustering = import_tfmot().clustering.keras
    clustered = clustering.cluster_weights(
        to_tf_keras(small),
        number_of_clusters=CLUSTERS,
        cluster_centroids_init=clustering.CentroidInitialization.KMEANS_PLUS_PLUS,
    )
    clustered = clustering.strip_clustering(trained(clustered, x, y, epochs))
    return {"pruned, int8 with training": aware, f"pruned, {CLUSTERS} clusters": clustered}


def trained(model: tf_keras.Model, x: np.ndarray, y: np.ndarray, epochs: int) -> tf_keras.Model:
    """A few more epochs with small steps."""
    model.compile(
        tf_keras.optimizers.Adam(1e-4),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(x, y, batch_size=128, epochs=epochs, verbose=2)
    return model


def to_tflite(model: tf_keras.Model, quantised: bool) -> bytes:
    """tf_keras models have a converter of their own."""
    # With a fixed batch size the file needs no shape arithmetic.
    fixed = tf.function(model, input_signature=[tf.TensorSpec((1, *model.input_shape[1:]))])
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [fixed.get_concrete_function()], model
    )
    if quantised:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter.convert()


def measured(files: dict[str, pathlib.Path], images: np.ndarray, labels: np.ndarray) -> list[dict]:
    """Test accuracy, size, and latency in turns on one thread."""
    times = keras_sbp.benchmark(files, memory=False)
    return [
        {
            "model": name,
            "accuracy": accuracy(path, images, labels),
            "bytes": row.bytes,
            "compressed": len(gzip.compress(path.read_bytes())),
            "smaller": round(row.size_ratio, 2),
            "faster": round(row.speedup, 2),
        }
        for (name, path), row in zip(files.items(), times.rows, strict=True)
    ]


def accuracy(path: pathlib.Path, images: np.ndarray, labels: np.ndarray) -> float:
    """That of the file, in LiteRT."""
    interpreter = tf.lite.Interpreter(str(path))
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    right = 0
    for image, label in zip(images, labels, strict=True):
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        right += int(interpreter.get_tensor(result["index"]).argmax() == label)
    return right / len(labels)


def show(rows: list[dict]) -> None:
    table = Table(*rows[0])
    for row in rows:
        table.add_row(
            row["model"],
            f"{row['accuracy']:.2%}",
            f"{row['bytes']:,}",
            f"{row['compressed']:,}",
            f"{row['smaller']}×",
            f"{row['faster']}×",
        )
    Console().print(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("KERAS_SBP_DATA", "."))
    parser.add_argument("--networks", default="runs/mnist", help="baseline.keras and gated.keras")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--json", help="file for the table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
