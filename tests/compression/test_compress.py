"""compress(): to a target in one call, on whatever fit() takes."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest

import keras_sbp
from keras_sbp.compression.backup import Backup
from keras_sbp.compression.student import student_of


def assert_same_weights(model, before):
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 6)).astype("float32")
Y = (X[:, 0] > 0).astype("int32") + (X[:, 1] > 0)
HALF = keras_sbp.Budget(macs=0.5)
QUIET = {"verbose": 0, "batch_size": 16}


def trained(optimizer="adam", cls=keras.Model, metrics=("accuracy",), eagerly=True):
    """A network with a BatchNormalization, after some steps. To compile them takes longer."""
    loss = "sparse_categorical_crossentropy"
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), name="features")
    x = keras.layers.Dense(12, name="first")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Dense(10, activation="relu", name="second")(x)
    model = cls(inputs=inputs, outputs=keras.layers.Dense(3, activation="softmax")(x))
    model.compile(optimizer, loss, metrics=list(metrics) or None, run_eagerly=eagerly)
    model.fit(X, Y, batch_size=16, epochs=2, verbose=0)
    return model


@pytest.fixture(scope="module")
def model():
    return trained()


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_meets_the_target(model, epochs):
    before = model.get_weights()
    small, report = keras_sbp.compress(
        model, X, Y, target=HALF, epochs=epochs, validation_data=(X, Y), **QUIET
    )
    assert report.pruned.macs_after <= 0.5 * report.pruned.macs_before
    assert report.epochs == epochs == len(report.history["loss"])
    assert report.gated_epochs == max(1, round(epochs / 2))
    assert set(report.before) == set(report.after) == {"loss", "accuracy"}
    assert small.evaluate(X, Y, verbose=0, return_dict=True) == pytest.approx(report.after)
    assert not [layer for layer in small.layers if isinstance(layer, keras_sbp.SBPLayer)]
    assert type(small.optimizer) is type(model.optimizer)
    assert small.get_layer("norm").momentum == model.get_layer("norm").momentum
    assert_same_weights(model, before)


def test_steps_that_are_compiled():
    _, report = keras_sbp.compress(trained(eagerly=False), X, Y, target=HALF, epochs=3, **QUIET)
    assert report.pruned.macs_after <= 0.5 * report.pruned.macs_before


def test_units_of_layers(model):
    small, _ = keras_sbp.compress(
        model, X, Y, target={"first": 5, "second": 0.5}, epochs=2, **QUIET
    )
    assert (small.get_layer("first").units, small.get_layer("second").units) == (5, 5)


def test_without_labels(model):
    """The teacher is all there is, and training brings the network nearer to it."""
    small, report = keras_sbp.compress(model, X, target=HALF, epochs=6, **QUIET)
    assert report.history["loss"][-1] < report.history["loss"][3]
    assert report.before == report.after == {}
    assert small.compiled


class PyData(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, number):
        part = slice(16 * number, 16 * number + 16)
        return X[part], Y[part]


def batches():
    for number in itertools.count():
        yield PyData()[number % 3]


@pytest.mark.parametrize(
    ("x", "y", "options"),
    [
        pytest.param(PyData, None, {}, id="PyDataset"),
        pytest.param(batches, None, {"steps_per_epoch": 3}, id="generator"),
        pytest.param(lambda: {"features": X}, Y, {"batch_size": 16}, id="dict"),
        pytest.param(lambda: X, Y, {"validation_split": 0.25, "batch_size": 16}, id="split"),
        pytest.param(lambda: X, Y, {"sample_weight": np.ones(48), "batch_size": 16}, id="weights"),
        pytest.param(lambda: X, Y, {"class_weight": {0: 1.0, 1: 2.0, 2: 1.0}}, id="classes"),
    ],
)
def test_whatever_fit_takes(model, x, y, options):
    _, report = keras_sbp.compress(model, x(), y, target=HALF, epochs=2, verbose=0, **options)
    assert report.pruned.macs_after <= 0.5 * report.pruned.macs_before
    assert bool(report.after) == ("validation_split" in options)


@pytest.mark.tensorflow
def test_a_dataset(model):
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
    unknown = data.filter(lambda x, y: True)
    for each in (data, unknown):
        _, report = keras_sbp.compress(
            model, each, target=HALF, epochs=2, validation_data=each, verbose=0
        )
        assert report.pruned.macs_after <= 0.5 * report.pruned.macs_before
        assert "accuracy" in report.after


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(0.05, momentum=0.9),
        lambda: keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(1e-2, 12)),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-2)),
        lambda: keras.optimizers.Adam(1e-2, use_ema=True, ema_overwrite_frequency=None),
    ],
    ids=["SGD", "schedule", "scaled", "averaged"],
)
def test_optimizers(optimizer):
    small, report = keras_sbp.compress(trained(optimizer()), X, Y, target=HALF, epochs=2, **QUIET)
    assert report.pruned.macs_after <= 0.5 * report.pruned.macs_before
    assert np.isfinite(report.history["loss"]).all()
    assert type(small.optimizer) is type(optimizer())


def test_a_schedule_goes_on_without_gates():
    """The learning rate of the last epoch is that of the end of the schedule."""
    rates = []
    watch = keras.callbacks.LambdaCallback()
    watch.on_epoch_end = lambda *_: rates.append(float(watch.model.optimizer.learning_rate))
    schedule = keras.optimizers.schedules.PolynomialDecay(0.4, 12, 0.0)
    keras_sbp.compress(
        trained(keras.optimizers.SGD(schedule)),
        X, Y, target=HALF, epochs=4, callbacks=[watch], teacher=None, **QUIET
    )  # fmt: skip
    np.testing.assert_allclose(rates, [0.3, 0.2, 0.1, 0.0], atol=1e-6)


class Doubled(keras.Model):
    """Trains in its own way."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return 2 * super().compute_loss(x, y, y_pred, sample_weight, training)


class Older(keras.Model):
    """Written before `compute_loss` had the argument `training`."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return 2 * super().compute_loss(x, y, y_pred, sample_weight)


@pytest.mark.parametrize("cls", [Doubled, Older])
def test_a_class_that_trains_in_its_own_way(cls):
    model = trained(cls=cls)
    small, report = keras_sbp.compress(
        model, X, Y, target=HALF, epochs=2, validation_data=(X, Y), **QUIET
    )
    assert isinstance(small, cls)
    assert small.evaluate(X, Y, verbose=0)[0] == pytest.approx(report.after["loss"])


def test_another_teacher(model):
    teacher = trained()
    kernels = teacher.get_weights()
    keras_sbp.compress(model, X, Y, target=HALF, epochs=2, teacher=teacher, **QUIET)
    assert_same_weights(teacher, kernels)


def test_gates_that_are_there(model):
    gated = keras_sbp.insert_sbp(model, layers="second", verbose=0)
    gated.compile("adam", "sparse_categorical_crossentropy")
    _, report = keras_sbp.compress(gated, X, Y, target={"second": 4}, epochs=2, **QUIET)
    assert [gate.units_after for gate in report.pruned.gates] == [4]


def test_a_callback_that_stops_before_the_target(model):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    with pytest.warns(UserWarning, match="has not met its target"):
        _, report = keras_sbp.compress(
            model, X, Y, target=HALF, epochs=6, callbacks=[Stop()], **QUIET
        )
    assert report.pruned.macs_after <= 0.5 * report.pruned.macs_before


def test_a_callback_that_takes_units_back(model):
    """Weights of an epoch before the last units went are restored when training ends."""
    restore = keras.callbacks.EarlyStopping(
        "loss", mode="max", patience=9, restore_best_weights=True
    )
    _, report = keras_sbp.compress(
        model, X, Y, target={"first": 3, "second": 2}, epochs=6, callbacks=[restore], **QUIET
    )
    assert [gate.units_after for gate in report.pruned.gates] == [3, 2]


def test_a_schedule_that_is_over():
    """The learning rate starts anew, and the gates count on it."""
    schedule = keras.optimizers.schedules.CosineDecay(1e-2, 6)
    model = trained(keras.optimizers.Adam(schedule))
    assert float(model.optimizer.learning_rate) == pytest.approx(0.0)
    _, report = keras_sbp.compress(model, X, Y, target=HALF, epochs=2, **QUIET)
    assert np.isfinite(report.history["loss"]).all()


class Crash(keras.callbacks.Callback):
    """Fails like a power cut, after the state of an epoch is written."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.after:
            raise KeyboardInterrupt


def test_goes_on_after_a_part_that_was_stopped(model, tmp_path):
    """The gates went before their last epoch, and the folder knows the network that was left."""
    options = {"target": HALF, "epochs": 6, "backup_dir": tmp_path / "b", **QUIET}
    stop = keras.callbacks.LambdaCallback()
    stop.on_epoch_end = lambda epoch, logs=None: setattr(stop.model, "stop_training", epoch == 0)
    with pytest.warns(UserWarning, match="not met"), pytest.raises(KeyboardInterrupt):
        keras_sbp.compress(model, X, Y, callbacks=[stop, Crash(4)], **options)
    _, report = keras_sbp.compress(model, X, Y, **options)
    assert report.pruned.macs_after <= 0.5 * report.pruned.macs_before
    assert len(report.history["loss"]) == 4


@pytest.mark.parametrize("after", [1, 2, 3])
def test_goes_on_after_a_crash(model, tmp_path, after):
    """With gates, between both parts, and without gates."""
    options = {"target": HALF, "epochs": 4, "backup_dir": tmp_path / "b", **QUIET}
    with pytest.raises(KeyboardInterrupt):
        keras_sbp.compress(model, X, Y, callbacks=[Crash(after)], **options)
    seen = []
    watch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: seen.append(epoch))
    _, report = keras_sbp.compress(model, X, Y, callbacks=[watch], **options)
    assert seen == list(range(after, 4))
    assert len(report.history["loss"]) == 4
    assert report.pruned.macs_after <= 0.5 * report.pruned.macs_before
    assert not (tmp_path / "b").exists()


def test_the_state_is_that_of_the_epoch(model, tmp_path):
    """Each epoch's file brings weights and optimizer back."""
    backup = Backup(tmp_path / "b", {"target": "x"}, gated_epochs=1)
    other = trained()
    backup.save(other, 2, {"loss": [2.0, 1.0]})
    again = trained()
    again.set_weights([0 * weight for weight in again.get_weights()])
    assert backup.epochs_done() == 2
    assert backup.restore(again, 2) == {"loss": [2.0, 1.0]}
    assert_same_weights(again, other.get_weights())
    assert int(again.optimizer.iterations) == int(other.optimizer.iterations) > 0


@pytest.mark.remedy("Pass another folder, or delete this one")
def test_a_folder_of_another_call(model, tmp_path):
    options = {"epochs": 2, **QUIET}
    with pytest.raises(KeyboardInterrupt):
        keras_sbp.compress(
            model, X, Y, target=HALF, backup_dir=tmp_path / "b", callbacks=[Crash(1)], **options
        )
    with pytest.raises(ValueError, match="a state with another target"):
        keras_sbp.compress(model, X, Y, target={"first": 4}, backup_dir=tmp_path / "b", **options)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(ValueError, match="with other files"):
        keras_sbp.compress(model, X, Y, target=HALF, backup_dir=tmp_path / "other", **options)
    keras_sbp.compress(model, X, Y, target={"first": 4}, backup_dir=tmp_path / "new", **options)


def test_report(model, capsys):
    _, report = keras_sbp.compress(
        model, X, Y, target=HALF, epochs=2, validation_data=(X, Y), batch_size=16, verbose=2
    )
    said = capsys.readouterr().out
    assert "compress: 1 of 2 epochs with gates" in said
    assert "1 epochs without gates" in said
    report.print()
    printed = " ".join(capsys.readouterr().out.split())
    assert "fewer MACs after 2 epochs" in printed
    assert "accuracy" in printed and "second" in printed
    assert report.to_dict()["pruned"]["macs_after"] == report.pruned.macs_after


@pytest.mark.remedy("Pass the training data")
@pytest.mark.remedy("Pass a trained, compiled keras.Model")
@pytest.mark.remedy("Call model.compile(optimizer, loss, metrics) first")
def test_arguments(model):
    options = {"target": HALF, "epochs": 1, **QUIET}
    with pytest.raises(TypeError, match="makes a keras.Model small"):
        keras_sbp.compress("model", X, Y, **options)
    bare = keras.Model(model.inputs, model.outputs)
    with pytest.raises(ValueError, match="Received: one that is not"):
        keras_sbp.compress(bare, X, Y, **options)
    bare.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="x=None"):
        keras_sbp.compress(bare, **options)
    with pytest.raises(ValueError, match="sets `initial_epoch`"):
        keras_sbp.compress(bare, X, Y, initial_epoch=3, **options)
    with pytest.raises(ValueError, match="validation_split=0.5"):
        keras_sbp.compress(bare, X, Y, validation_split=0.5, validation_data=(X, Y), **options)
    with pytest.raises(TypeError, match="'original', None or a keras.Model"):
        keras_sbp.compress(bare, X, Y, teacher="other", **options)
    keras_sbp.compress(bare, X, Y, validation_data=(X, Y), **options)


class Own(keras.Model):
    """Cannot be made from other layers."""

    def __init__(self):
        inputs = keras.Input((6,))
        super().__init__(inputs, keras.layers.Dense(3, activation="softmax")(inputs))

    def compute_loss(self, *args, **kwargs):
        return super().compute_loss(*args, **kwargs)


def test_a_class_that_cannot_train_other_layers(model):
    gated = keras_sbp.insert_sbp(model, verbose=0)
    own = Own()
    with pytest.raises(ValueError, match=r"expected a class|Expected a class that makes a model"):
        student_of(gated, own, None)
    assert isinstance(student_of(gated, trained(cls=Doubled), None), Doubled)


@pytest.mark.tensorflow
@pytest.mark.remedy("Change it so, or pass teacher=None")
def test_a_step_that_does_not_ask_the_teacher():
    import tensorflow as tf

    class Step(keras.Model):
        loss_of = staticmethod(keras.losses.SparseCategoricalCrossentropy())

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.loss_of(y, self(x, training=True)) + sum(self.losses)
            variables = self.trainable_variables
            self.optimizer.apply(tape.gradient(loss, variables), variables)
            return {"loss": loss}

    model = trained(cls=Step, metrics=())
    with pytest.raises(ValueError, match="which the train_step of Step does not call"):
        keras_sbp.compress(model, X, Y, target=HALF, epochs=2, **QUIET)
    small, _ = keras_sbp.compress(model, X, Y, target=HALF, epochs=2, teacher=None, **QUIET)
    assert isinstance(small, Step)
