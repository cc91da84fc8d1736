"""The parts that train the rows of the paper's table."""

from __future__ import annotations

import json
import pathlib

import keras
import numpy as np
import pytest

from benchmarks.paper import config, images, rules, stages
from benchmarks.paper.distil import Distillation
from benchmarks.paper.trial import shortened
from keras_sbp.demo.data import Dataset

MNIST_LIKE = config.Row(
    name="tiny",
    title="tiny",
    network="lenet_500_300",
    dense=config.Dense(epochs=2),
    gated=config.Gated(epochs=2, kl_weight=0.1),
    prune=config.Prune(budget=0.3),
    tune=config.Tune(epochs=2, distil=0.5, shift=1),
)


def dataset(count: int = 300, shape: tuple = (28, 28, 1)) -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.random((count, *shape)).astype("float32")
    y = rng.integers(10, size=count)
    return Dataset(x, y, x[:50], y[:50])


def numbered(shape: tuple = (6, 5, 2)) -> Dataset:
    """Images whose label is their number."""
    data = dataset(300, shape)
    return Dataset(data.x_train, np.arange(300), data.x_test, data.y_test)


def shuffled(data: Dataset, **options: object) -> images.ShuffledImages:
    return images.ShuffledImages(data.x_train, data.y_train, 0, **options)


def test_moved_images_are_cut_from_the_image_with_zeros_around_it() -> None:
    data = numbered()
    batches = shuffled(data, shift=2, mirror=True)
    x, y = batches[1]
    assert x.shape == (128, 6, 5, 2)
    found = set()
    for image, label in zip(x, y, strict=True):
        padded = np.pad(data.x_train[label], [(2, 2), (2, 2), (0, 0)])
        cuts = {
            (down, right, mirror): padded[down : down + 6, right : right + 5][:, :: 1 - 2 * mirror]
            for down in range(5)
            for right in range(5)
            for mirror in (0, 1)
        }
        found.update(move for move, cut in cuts.items() if np.array_equal(cut, image))
    assert {move[:2] for move in found} == {(d, r) for d in range(5) for r in range(5)}
    assert {move[2] for move in found} == {0, 1}


def test_images_that_neither_move_nor_mirror_stay_as_they_are() -> None:
    data = numbered()
    x, y = shuffled(data)[0]
    np.testing.assert_array_equal(x, data.x_train[y])


def test_every_epoch_has_each_image_once_in_an_order_of_its_own() -> None:
    batches = shuffled(numbered(), shift=1, mirror=True)
    epochs = []
    for _ in range(3):
        epochs.append(np.concatenate([batches[i][1] for i in range(len(batches))]))
        batches.on_epoch_end()
    for order in epochs:
        assert sorted(order) == list(range(300))
    assert not np.array_equal(epochs[0], epochs[1])
    again = shuffled(numbered(), shift=1, mirror=True)
    again.start(2)
    np.testing.assert_array_equal(again[0][1], epochs[2][:128])


def test_teachers_logits_are_those_of_the_moved_image() -> None:
    data = numbered((28, 28, 1))
    teacher = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    teacher.add(keras.layers.Dense(10))
    x, targets = images.DistilledImages(data.x_train, data.y_train, teacher, 0, 1)[0]
    np.testing.assert_allclose(targets[:, 1:], teacher.predict(x, verbose=0), rtol=1e-4, atol=1e-5)
    assert sorted(targets[:, 0]) == sorted(set(targets[:, 0]))


def test_mirrored_images_cannot_be_distilled() -> None:
    with pytest.raises(ValueError, match="mirrored"):
        images.DistilledImages(np.zeros((1, 4, 4, 1)), np.zeros(1), None, 0, mirror=True)


def test_validation_keeps_the_test_images_out(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        f"{kind}_{part}": rng.integers(255, size=shape).astype("uint8")
        for part, count in (("train", 10_100), ("test", 7))
        for kind, shape in (("x", (count, 4, 4)), ("y", (count,)))
    }
    np.savez(tmp_path / "mnist.npz", **arrays)
    data = images.load("mnist", str(tmp_path), validate=True)
    np.testing.assert_array_equal(data.y_test, arrays["y_train"][-10_000:])
    np.testing.assert_array_equal(data.y_train, arrays["y_train"][:100])
    assert len(images.load("mnist", str(tmp_path), validate=False).y_test) == 7


def test_distillation_is_hintons_loss() -> None:
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 4, 10)) * 3.0
    label = np.array([3, 1, 9, 0])

    def softmax(z: np.ndarray) -> np.ndarray:
        z = np.exp(z - z.max(-1, keepdims=True))
        return z / z.sum(-1, keepdims=True)

    p, q = softmax(teacher / 4.0), softmax(student / 4.0)
    soft = (p * np.log(p / q)).sum(-1) * 16.0
    hard = -np.log(softmax(student)[range(4), label])
    loss = Distillation(0.7, 4.0)
    targets = np.concatenate([label[:, None], teacher], 1).astype("float32")
    found = loss(targets, student.astype("float32"))
    assert float(found) == pytest.approx((0.3 * hard + 0.7 * soft).mean(), rel=1e-4)
    copy = Distillation.from_config(loss.get_config())
    assert float(copy(targets, student.astype("float32"))) == float(found)


def test_a_row_goes_through_all_stages_and_is_read_back(tmp_path: pathlib.Path) -> None:
    data = dataset()
    models = stages.run(MNIST_LIKE, data, tmp_path, seed=0)
    assert list(models) == ["dense", "gated", "prune", "tune"]
    small, tuned = models["prune"], models["tune"]
    assert small.count_params() == tuned.count_params() < 0.5 * models["dense"].count_params()
    assert (small.get_layer("logits").kernel != tuned.get_layer("logits").kernel).numpy().any()
    history = stages.path(MNIST_LIKE, tmp_path, "gated").with_suffix(".history.json")
    gates = [epoch["gates"] for epoch in json.loads(history.read_text())]
    assert [sum(gate["gate_input"]["log10_snr"]) for gate in gates] == [784, 784]
    times = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.keras")}
    again = stages.run(MNIST_LIKE, data, tmp_path, seed=0)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.keras")} == times
    for stage, model in models.items():
        trained = model.trainable_variables, again[stage].trainable_variables
        for first, second in zip(*trained, strict=True):
            np.testing.assert_array_equal(first, second)


def test_training_goes_on_where_it_stopped(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = config.Row("t", "t", "lenet_500_300", config.Dense(epochs=4, shift=1))
    save = keras.Model.save_weights

    def stops(model: keras.Model, path: pathlib.Path, **kwargs: object) -> None:
        save(model, path, **kwargs)
        if sum(1 for _ in tmp_path.glob("**/epoch-00001*")):
            raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "save_weights", stops)
    with pytest.raises(KeyboardInterrupt):
        stages.run(row, dataset(), tmp_path, seed=0)
    monkeypatch.undo()
    seen = []
    start = images.ShuffledImages.start
    monkeypatch.setattr(
        images.ShuffledImages,
        "start",
        lambda self, epoch: (seen.append(epoch), start(self, epoch))[1],
    )
    stages.run(row, dataset(), tmp_path, seed=0)
    history = stages.path(row, tmp_path, "dense").with_suffix(".history.json")
    assert len(json.loads(history.read_text())) == 4
    assert seen[:2] == [0, 1], "the second epoch's images come after the first checkpoint"


@pytest.mark.parametrize("rule", ["l1", "taylor"])
def test_baselines_meet_their_budget(rule: str) -> None:
    keras.utils.set_random_seed(0)
    dense = stages.networks.NETWORKS["lenet_500_300"]()
    small = rules.pruned(dense, config.Prune(rule=rule, budget=0.25), dataset(), seed=0)
    assert small.count_params() < 0.3 * dense.count_params()


def test_frozen_norms_keep_their_statistics_until_the_small_network_trains() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 8, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
    stages.set_norms_trainable(model, False)
    model.compile("sgd", "mse")
    model.fit(x, y, verbose=0)
    assert not model.layers[0].moving_mean.numpy().any()
    copy = stages.copied(model)
    copy.compile("sgd", "mse")
    copy.fit(x, y, verbose=0)
    assert copy.layers[0].moving_mean.numpy().all()
    assert not model.layers[0].moving_mean.numpy().any()


def test_a_trial_is_the_row_but_for_its_length() -> None:
    row = config.load("vgg_like_sbp")
    short = shortened(row, epochs=3)
    assert (short.dense.epochs, short.gated.epochs) == (3, 3)
    assert short.prune is None
    assert short.gated.learning_rate == row.gated.learning_rate
