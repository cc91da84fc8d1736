"""tensorflow-model-optimization: it works on the twins, and leaves the process as it was."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.tensorflow, pytest.mark.tfmot]

PROLOGUE = """
import os, keras, tensorflow as tf
from keras_sbp.integrations.tfmot import import_tfmot, to_tf_keras
small = keras.Sequential([
    keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3),
    keras.layers.BatchNormalization(), keras.layers.ReLU(),
    keras.layers.Flatten(), keras.layers.Dense(3)])
"""


def run(script: str, **variables: str) -> str:
    """Runs a script in a process of its own, whose state it may spoil."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"} | variables
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE + script],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_process_stays_as_it_was():
    said = run(
        """
before = dict(os.environ)
to_tf_keras(small)
import_tfmot()
assert dict(os.environ) == before
assert tf.keras.Model is keras.Model
import_tfmot()
assert dict(os.environ) == before
print("same")
"""
    )
    assert said.strip() == "same"


@pytest.mark.parametrize("value", ["0", "1"])
def test_a_variable_of_the_user_stays(value):
    script = "import_tfmot()\nprint(os.environ['TF_USE_LEGACY_KERAS'])"
    assert run(script, TF_USE_LEGACY_KERAS=value).strip() == value


def test_quantisation_clustering_and_sparsity_take_the_twin():
    said = run(
        """
import numpy as np
tfmot = import_tfmot()
x, y = np.random.rand(32, 8, 8, 1).astype("float32"), np.arange(32) % 3
import tf_keras
for wrap in (
    tfmot.quantization.keras.quantize_model,
    lambda m: tfmot.clustering.keras.cluster_weights(m, number_of_clusters=4,
        cluster_centroids_init=tfmot.clustering.keras.CentroidInitialization.LINEAR),
    tfmot.sparsity.keras.prune_low_magnitude,
):
    wrapped = wrap(to_tf_keras(small))
    wrapped.compile("adam", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    step = [tfmot.sparsity.keras.UpdatePruningStep()] if "prune" in wrapped.layers[1].name else []
    wrapped.fit(x, y, verbose=0, callbacks=step)
    print(type(wrapped.layers[1]).__name__)
"""
    )
    assert len(said.split()) == 3


def test_quantisation_takes_what_pruning_leaves():
    """Selected features and a constant factor: whole integers all the way, but for in and out."""
    said = run(
        """
import numpy as np
from keras import layers, ops
from keras_sbp.integrations.tfmot import quantize_model
x = keras.Input((8, 8, 1))
y = layers.Rescaling(2.0)(layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3)(x))))
y = ops.take(layers.Flatten()(y), np.arange(0, 144, 2), axis=1)
aware = quantize_model(to_tf_keras(keras.Model(x, layers.Dense(3)(y))))
aware.compile("adam", "mse")
aware.fit(np.random.rand(64, 8, 8, 1), np.random.rand(64, 3), verbose=0)
converter = tf.lite.TFLiteConverter.from_keras_model(aware)
converter.optimizations = [tf.lite.Optimize.DEFAULT]
interpreter = tf.lite.Interpreter(model_content=converter.convert())
print(*[d["op_name"] for d in interpreter._get_ops_details() if d["op_name"] != "DELEGATE"])
"""
    )
    assert said.split() == [
        *("QUANTIZE", "CONV_2D", "MUL", "RESHAPE", "GATHER", "FULLY_CONNECTED", "DEQUANTIZE")
    ]


def test_what_to_install(monkeypatch):
    from keras_sbp.integrations import tfmot

    monkeypatch.setitem(sys.modules, "tensorflow_model_optimization", None)
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    before = dict(os.environ)
    with pytest.raises(ImportError, match=r"keras-sbp\[tfmot\]"):
        tfmot.import_tfmot()
    with pytest.raises(ImportError, match=r"keras-sbp\[tfmot\]"):
        tfmot.to_tf_keras(None)
    assert dict(os.environ) == before
