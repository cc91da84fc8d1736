"""A training that was interrupted goes on where it was."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_sbp.demo.training import Checkpoints


@pytest.mark.tensorflow
def test_checkpoints_restore_weights_and_optimizer(tmp_path):
    def compiled() -> keras.Model:
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        model.compile("adam", "mse")
        return model

    x, y = np.ones((8, 4), "float32"), np.ones((8, 3), "float32")
    first, checkpoints = compiled(), Checkpoints(tmp_path / "states")
    assert checkpoints.epochs_done() == 0
    first.fit(x, y, epochs=3, callbacks=[checkpoints], verbose=0)
    # What a crash in the middle of writing leaves behind is not mistaken for a state.
    (tmp_path / "states" / "writing.weights.h5").write_bytes(b"half")
    second, again = compiled(), Checkpoints(tmp_path / "states")
    assert again.epochs_done() == 3
    again.restore(second)
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(first.optimizer.variables, second.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    seconds, cpu_seconds = again.times()
    assert seconds > 0
    assert cpu_seconds > 0
    again.remove_weights()
    assert again.epochs_done() == 0
    assert again.times() == (seconds, cpu_seconds)
