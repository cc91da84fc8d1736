"""`keras-sbp compress` does what `keras_sbp.compress` does, with what a file holds."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from keras_sbp.cli import main

TRAINING = ("--epochs", 2, "--batch-size", 16, "--macs", 0.5)


@pytest.fixture(scope="module")
def compiled(files, tmp_path_factory):
    """The plain model's file, with what it is trained with."""
    model = keras.saving.load_model(files / "plain.keras")
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    path = tmp_path_factory.mktemp("compiled") / "plain.keras"
    model.save(path)
    return path


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


@pytest.mark.tensorflow
def test_compress(files, compiled, tmp_path, capsys):
    data = ("--data", files / "x.npz", "--validation-data", files / "x.npz")
    assert run("compress", compiled, "-o", tmp_path / "s.keras", *data, *TRAINING, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pruned"]["macs_after"] <= 0.5 * found["pruned"]["macs_before"]
    assert set(found["before"]) == set(found["after"]) == {"loss", "accuracy"}
    small = keras.saving.load_model(tmp_path / "s.keras")
    assert small.get_layer("conv").filters < 8
    assert isinstance(small.optimizer, keras.optimizers.SGD)


@pytest.mark.tensorflow
@pytest.mark.remedy("Pass --loss NAME, such as --loss sparse_categorical_crossentropy")
def test_a_file_that_was_not_compiled(files, tmp_path, refused, capsys):
    command = ("compress", files / "plain.keras", "-o", tmp_path / "s.keras", *TRAINING)
    data = ("--data", files / "x.npz")
    assert "does not say what the model is trained with" in refused(*command, *data)
    loss = ("--loss", "sparse_categorical_crossentropy", "--learning-rate", 0.01)
    assert run(*command, *data, *loss, "--no-teacher") == 0
    said = capsys.readouterr()
    assert "fewer MACs" in said.out and "Epoch" not in said.out
    assert "epochs with gates" in said.err


def test_options_that_do_not_fit(files, tmp_path, refused):
    command = ("compress", files / "plain.keras", "-o", tmp_path / "s.keras")
    data = ("--data", files / "x.npz")
    assert "belong to --loss" in refused(*command, *data, *TRAINING, "--from-logits")
    np.savez(tmp_path / "y.npz", x=np.zeros((4, 6, 6, 2), "float32"))
    assert "has no labels" in refused(
        *command, "--data", tmp_path / "y.npz", *TRAINING, "--loss", "mse"
    )
