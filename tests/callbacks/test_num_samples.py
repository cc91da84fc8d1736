"""SNRMonitor tells the gates the size of the data, whatever the data are."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest

from keras_sbp.callbacks import SNRMonitor
from keras_sbp.layers import SBPLayer

X = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")

pytestmark = pytest.mark.filterwarnings(
    "ignore:(Nothing will be pruned|No gate can lose|The KL outweighs)"
)


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


def test_a_partial_batch_counts_as_a_whole_one_until_the_examples_are_counted():
    data = (X[:20], X[:20])
    assert samples_per_epoch(*kl_model(), data, batch_size=6, epochs=3) == [24, 20, 20]


class SmallFirst(keras.utils.PyDataset):
    """26 examples. Keras shuffles the batches of a PyDataset, so the small one may come first."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        batch = np.ones((6 if index else 2, 4), "float32")
        return batch, batch


def test_a_small_first_batch_leaves_the_number_exact():
    model, gate = kl_model()
    history = model.fit(
        SmallFirst(), epochs=2, shuffle=False, verbose=0, callbacks=[SNRMonitor()]
    ).history
    # The first step cannot know that larger batches will come, the others do.
    first = (2 / 10 + 24 / 26) / 26
    np.testing.assert_allclose(history["loss"], [gate.kl() * first, gate.kl() / 26], rtol=1e-5)
    np.testing.assert_allclose(history["sbp_kl"], gate.kl() / 26, rtol=1e-5)


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


def small_first():
    for index in range(5):
        yield SmallFirst()[index]


def test_data_of_unknown_length_keep_their_number_between_fits():
    model, gate = kl_model()
    monitor = SNRMonitor()
    counted = [
        samples_per_epoch(model, gate, (small_first(),), epochs=1, monitor=monitor)
        for _ in range(3)
    ]
    assert counted == [[0], [26], [26]]
    # What another fit() says in between is about other data.
    assert samples_per_epoch(model, gate, (X, X), batch_size=6) == [24, 24]
    assert samples_per_epoch(model, gate, (small_first(),), epochs=1, monitor=monitor) == [0]


def test_the_number_is_forgotten_when_training_ends_but_still_shown():
    model, gate = kl_model()
    samples_per_epoch(model, gate, (X, X), batch_size=6)
    shown = gate.kl_loss()
    np.testing.assert_allclose(shown, gate.kl() / 24, rtol=1e-6)
    before = model.get_weights()
    for train in (
        lambda: model.fit(X[:4], X[:4], batch_size=2, verbose=0),
        lambda: model.train_on_batch(X[:4], X[:4]),
    ):
        with pytest.raises(RuntimeError, match="does not know the number of training examples"):
            train()
    np.testing.assert_equal(model.get_weights(), before)
    assert gate.kl_loss() == shown
    # The message's remedy.
    assert samples_per_epoch(model, gate, (X[:4], X[:4]), batch_size=2) == [4, 4]


class Interrupt(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


def test_the_number_of_an_interrupted_fit_is_forgotten():
    model, gate = kl_model()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, X, batch_size=6, verbose=0, callbacks=[SNRMonitor(), Interrupt()])
    with pytest.raises(RuntimeError, match="does not know the number of training examples"):
        model.fit(X[:4], X[:4], batch_size=2, verbose=0)
    assert samples_per_epoch(model, gate, (X[:4], X[:4]), batch_size=2) == [4, 4]


def test_what_the_user_says_after_an_interrupted_fit_holds():
    model, gate = kl_model(name="interrupted")
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, X, batch_size=6, verbose=0, callbacks=[SNRMonitor(), Interrupt()])
    gate.set_steps_per_epoch(2)
    model.fit(X[:4], X[:4], batch_size=2, verbose=0)
    np.testing.assert_allclose(gate.kl_loss(), gate.kl() / 4, rtol=1e-6)


def test_what_the_user_said_outlives_a_fit_with_the_monitor():
    model, gate = kl_model(name="told")
    gate.set_steps_per_epoch(10)
    assert samples_per_epoch(model, gate, (X, X), batch_size=6) == [24, 24]
    np.testing.assert_allclose(model.train_on_batch(X[:6], X[:6]), gate.kl() / 60, rtol=1e-5)
    np.testing.assert_allclose(gate.kl_loss(), gate.kl() / 60, rtol=1e-6)


# PyTorch's trainer knows one step per execution only.
@pytest.mark.parametrize("steps", [2] if keras.backend.backend() != "torch" else [1])
def test_steps_per_execution_does_not_matter(steps):
    model, gate = kl_model(name="twice")
    model.compile(keras.optimizers.SGD(0.0), model.loss, steps_per_execution=steps)
    assert samples_per_epoch(model, gate, (X, X), batch_size=6) == [24, 24]
    monitor = SNRMonitor()
    for expected in (0, 26):
        found = samples_per_epoch(model, gate, (small_first(),), epochs=1, monitor=monitor)
        assert found == [expected]
