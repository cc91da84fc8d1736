"""SNRMonitor tells the gates the size of the data, whatever the data are."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest

from keras_sbp.callbacks import SNRMonitor
from keras_sbp.layers import SBPLayer

X = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")

pytestmark = pytest.mark.filterwarnings("ignore:Nothing will be pruned", "ignore:The KL outweighs")


@functools.cache
def kl_model(**arguments):
    """Its loss is the KL, and it does not move. Compiled once for all tests."""
    gate = SBPLayer(**arguments)
    model = keras.Sequential([keras.Input((4,)), gate])
    model.compile(keras.optimizers.SGD(0.0), lambda y, p: 0.0 * keras.ops.mean(p, axis=-1))
    return model, gate


def samples_per_epoch(model, gate, data, epochs=2, monitor=None, **arguments):
    """Returns the number of samples that each epoch's loss was divided by, 0 for no KL."""
    monitor = monitor or SNRMonitor()
    history = model.fit(*data, epochs=epochs, verbose=0, callbacks=[monitor], **arguments).history
    np.testing.assert_allclose(history["loss"], history["sbp_kl"], rtol=1e-5)
    return [round(gate.kl() / loss, 3) if loss else 0 for loss in history["loss"]]


def forever():
    while True:
        yield X[:6], X[:6]


def once():
    for start in range(0, 24, 6):
        yield X[start : start + 6], X[start : start + 6]


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return X[6 * index : 6 * index + 6], X[6 * index : 6 * index + 6]


@pytest.mark.parametrize(
    ("data", "arguments"),
    [
        (lambda: (X, X), {"batch_size": 6}),
        (lambda: (X, X), {"batch_size": 24}),
        (lambda: (Batches(),), {}),
        (lambda: (forever(),), {"steps_per_epoch": 4}),
    ],
    ids=["arrays", "one_batch", "pydataset", "generator_with_steps"],
)
def test_known_lengths_count_from_the_first_step(data, arguments):
    assert samples_per_epoch(*kl_model(), data(), **arguments) == [24, 24]


def test_steps_per_epoch_shortens_the_data():
    assert samples_per_epoch(*kl_model(), (X, X), batch_size=6, steps_per_epoch=2) == [12, 12]


def test_a_partial_batch_counts_as_a_whole_one():
    assert samples_per_epoch(*kl_model(), (X[:20], X[:20]), batch_size=6) == [24, 24]


def test_another_fit_counts_anew():
    model, gate = kl_model()
    assert samples_per_epoch(model, gate, (X, X), batch_size=12) == [24, 24]
    assert samples_per_epoch(model, gate, (X[:4], X[:4]), batch_size=2) == [4, 4]


def test_the_gates_weight_scales_the_kl():
    model, gate = kl_model(kl_weight=0.5)
    assert samples_per_epoch(model, gate, (X, X), batch_size=6) == [48, 48]


def test_num_samples_of_the_gate_goes_first():
    assert samples_per_epoch(*kl_model(num_samples=77), (X, X), batch_size=6) == [77, 77]


def test_a_generator_is_counted_in_its_first_epoch():
    model, gate = kl_model()
    monitor = SNRMonitor()
    # A plain generator cannot be rewound, so there is one epoch per fit().
    assert samples_per_epoch(model, gate, (once(),), epochs=1, monitor=monitor) == [0]
    assert samples_per_epoch(model, gate, (once(),), epochs=1, monitor=monitor) == [24]


def test_steps_per_execution_does_not_matter():
    model, gate = kl_model(name="twice")
    model.compile(keras.optimizers.SGD(0.0), model.loss, steps_per_execution=2)
    assert samples_per_epoch(model, gate, (X, X), batch_size=6) == [24, 24]
