"""Pruned, then quantised with training, or clustered: LeNet-5 on MNIST, step by step.

Needs mnist.npz in a folder (arrays x_train, y_train, x_test, y_test), and the extra [tfmot].

    pip install ".[tfmot]"
    python -m keras_sbp demo --dataset mnist --data FOLDER --out runs/mnist    # the gated network
    python examples/tfmot/quantisation_aware_training.py --data FOLDER
"""

from __future__ import annotations

import argparse
import gzip
import os
import pathlib
import tempfile

import keras
import numpy as np
import tensorflow as tf
import tf_keras

import keras_sbp
from keras_sbp.integrations.tfmot import import_tfmot, quantize_model, to_tf_keras

CLUSTERS = 16


def main() -> None:
    options = _options()
    with np.load(pathlib.Path(options.data, "mnist.npz")) as file:
        x, y, x_test, y_test = (file[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    x, x_test = (images[..., None].astype("float32") / 255.0 for images in (x, x_test))
    gated = keras.saving.load_model(options.gated, compile=False)
    small, report = keras_sbp.prune(gated)
    print(f"Pruned: {report}")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.tflite")
        for quantization in (None, "float16", "dynamic_int8", "int8"):
            keras_sbp.export(
                small,
                path,
                quantization=quantization,
                calibration_data=x[:500] if quantization == "int8" else None,
                overwrite=True,
            )
            tell(f"pruned, {quantization or 'float32'}", path.read_bytes(), x_test, y_test)

    aware = trained(quantize_model(to_tf_keras(small)), x, y, options.epochs)
    tell("pruned, int8 with training", to_tflite(aware, quantised=True), x_test, y_test)

    clustering = import_tfmot().clustering.keras
    clustered = clustering.cluster_weights(
        to_tf_keras(small),
        number_of_clusters=CLUSTERS,
        cluster_centroids_init=clustering.CentroidInitialization.KMEANS_PLUS_PLUS,
    )
    clustered = clustering.strip_clustering(trained(clustered, x, y, options.epochs))
    tell(f"pruned, {CLUSTERS} clusters", to_tflite(clustered), x_test, y_test)


def trained(model: tf_keras.Model, x: np.ndarray, y: np.ndarray, epochs: int) -> tf_keras.Model:
    """A few more epochs with small steps."""
    model.compile(
        tf_keras.optimizers.Adam(1e-4),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(x, y, batch_size=128, epochs=epochs, verbose=2)
    return model


def to_tflite(model: tf_keras.Model, quantised: bool = False) -> bytes:
    """tf_keras models have a converter of their own."""
    # With a fixed batch size the file needs no shape arithmetic.
    fixed = tf.function(model, input_signature=[tf.TensorSpec((1, *model.input_shape[1:]))])
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [fixed.get_concrete_function()], model
    )
    if quantised:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter.convert()


def tell(what: str, content: bytes, images: np.ndarray, labels: np.ndarray) -> None:
    """Prints test accuracy and size."""
    interpreter = tf.lite.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    right = 0
    for image, label in zip(images, labels, strict=True):
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        right += int(interpreter.get_tensor(result["index"]).argmax() == label)
    print(
        f"{what:28} accuracy {right / len(labels):.2%}  {len(content):7,} bytes, "
        f"{len(gzip.compress(content)):7,} compressed"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("KERAS_SBP_DATA", "."))
    parser.add_argument("--gated", default="runs/mnist/gated.keras")
    parser.add_argument("--epochs", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
