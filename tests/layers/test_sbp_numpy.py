"""SBPLayer under Keras's NumPy backend, where tensors are NumPy arrays."""

from __future__ import annotations

import os
import subprocess
import sys

CALLS = """
import keras, keras_sbp, numpy as np
gate = keras_sbp.SBPLayer(num_samples=8, log_sigma_initializer=-1.0, seed=1)
x = np.ones((4, 3), "float32")
first, second = gate(x, training=True), gate(x, training=True)
assert (first != second).all() and (first > 0).all()
(loss,) = gate.losses
assert abs(float(loss) - gate.kl() / 8) < 1e-5 * gate.kl()
assert (gate(x) == gate(x)).all()
gate = keras_sbp.SBPLayer(num_samples=8)
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3), gate])
assert model(x, training=True).shape == (4, 3) and len(model.losses) == 1
"""


def test_a_call_in_training_under_the_numpy_backend() -> None:
    environment = os.environ | {"KERAS_BACKEND": "numpy"}
    process = subprocess.run(
        [sys.executable, "-c", CALLS], env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
