"""SNRMonitor with tf.data."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_sbp.callbacks import SNRMonitor
from keras_sbp.layers import SBPLayer

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:(Nothing will be pruned|No gate can lose|The KL outweighs)"),
]

X = np.ones((24, 4), "float32")


def fit(data, **arguments):
    gate = SBPLayer()
    model = keras.Sequential([keras.Input((4,)), gate])
    loss = lambda y, p: 0.0 * keras.ops.mean(p, axis=-1)  # noqa: E731
    model.compile(keras.optimizers.SGD(0.0), loss, **arguments)
    return gate, model.fit(data, epochs=3, verbose=0, callbacks=[SNRMonitor()]).history


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda data: data, [24, 24, 24]),
        (lambda data: data.filter(lambda x, y: True), [0, 24, 24]),
    ],
    ids=["known_length", "unknown_length"],
)
def test_datasets(change, expected):
    import tensorflow as tf

    gate, history = fit(change(tf.data.Dataset.from_tensor_slices((X, X))).batch(6))
    assert [round(gate.kl() / loss, 3) if loss else 0 for loss in history["loss"]] == expected
    assert [bool(kl) for kl in history["sbp_kl"]] == [bool(n) for n in expected]


def test_several_steps_per_execution_are_counted_one_by_one():
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((X, X)).filter(lambda x, y: True).batch(5)
    gate, history = fit(data, steps_per_execution=2)
    expected = [0.0, gate.kl() / 24, gate.kl() / 24]
    np.testing.assert_allclose(history["loss"], expected, rtol=1e-5)
