"""SBPLayer with what only TensorFlow has: XLA on demand, and replicas."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_sbp.layers import SBPLayer

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize("jit_compile", [False, True])
def test_trains_with_and_without_xla(jit_compile):
    gate = SBPLayer(num_samples=8)
    model = keras.Sequential([keras.Input((6,)), gate, keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=jit_compile)
    x, y = np.random.default_rng(0).normal(size=(8, 6)), np.ones((8, 1))
    loss = model.fit(x, y, batch_size=4, verbose=0).history["loss"][0]
    assert loss > 0.9 * gate.kl() / 8
    assert np.abs(gate.posterior.log_sigma + 5).min() > 1e-3
    assert np.isfinite(model.evaluate(x, y, verbose=0))


REPLICAS = """
import numpy as np, keras, tensorflow as tf
from keras_sbp.callbacks import SNRMonitor
from keras_sbp.layers import SBPLayer

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    gate = SBPLayer()
    model = keras.Sequential([keras.Input((6,)), gate])
    model.compile(keras.optimizers.SGD(0.0), lambda y, p: 0.0 * keras.ops.mean(p, axis=-1))
x = np.ones((96, 6), "float32")
loss = model.fit(x, x, batch_size=32, verbose=0, callbacks=[SNRMonitor()]).history["loss"][0]
print("RATIO", loss / (gate.kl() / 96), gate.kl_loss() / (gate.kl() / 96))
with strategy.scope():
    model.compile("adam", "mse")
model.fit(x, x, batch_size=32, verbose=0, callbacks=[SNRMonitor()])
print("MOVED", np.abs(gate.posterior.log_sigma + 5).min() > 1e-3)
"""


def test_two_replicas_share_one_kl():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", REPLICAS],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    words = done.stdout.split()
    ratios = [float(word) for word in words[words.index("RATIO") + 1 :][:2]]
    np.testing.assert_allclose(ratios, 1.0, rtol=1e-4)
    assert words[-2:] == ["MOVED", "True"]
