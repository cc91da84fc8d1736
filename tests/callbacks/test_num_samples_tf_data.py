"""SNRMonitor with tf.data."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_sbp.callbacks import SNRMonitor
from keras_sbp.layers import SBPLayer

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:Nothing will be pruned", "ignore:The KL outweighs"),
]

X = np.ones((24, 4), "float32")


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

    gate = SBPLayer()
    model = keras.Sequential([keras.Input((4,)), gate])
    model.compile(keras.optimizers.SGD(0.0), lambda y, p: 0.0 * keras.ops.mean(p, axis=-1))
    data = change(tf.data.Dataset.from_tensor_slices((X, X))).batch(6)
    history = model.fit(data, epochs=3, verbose=0, callbacks=[SNRMonitor()]).history
    assert [round(gate.kl() / loss, 3) if loss else 0 for loss in history["loss"]] == expected
    assert [bool(kl) for kl in history["sbp_kl"]] == [bool(n) for n in expected]
