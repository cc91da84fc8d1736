"""What the command line takes, and what it says and returns when used wrongly."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from keras_sbp.cli import main
from keras_sbp.demo import data
from keras_sbp.version import __version__


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "command"),
        (["nonsense"], "invalid choice"),
        (["demo", "--dataset", "cifar"], "invalid choice"),
        (["demo", "--epochs", "0"], "expected a positive number, received 0"),
        (["demo", "--epochs", "many"], "--epochs"),
        (["demo", "--nonsense"], "unrecognized arguments"),
    ],
)
def test_wrong_use_is_2(arguments, said, capsys):
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_help_and_version_are_0(capsys):
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out
    assert main(["demo", "--help"]) == 0
    assert "--dataset" in capsys.readouterr().out


@pytest.mark.stress
def test_python_minus_m():
    done = subprocess.run(
        [sys.executable, "-m", "keras_sbp", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"keras-sbp {__version__}"


def _use(arguments, capsys) -> str:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("keras-sbp: ")
    assert "Traceback" not in said
    return said


@pytest.mark.tensorflow
def test_missing_mnist(tmp_path, capsys, monkeypatch):
    arguments = ["demo", "--dataset", "mnist", "--out", str(tmp_path / "out")]
    said = _use([*arguments, "--data", str(tmp_path)], capsys)
    assert "x_train, y_train, x_test, y_test" in said
    assert str(tmp_path / "mnist.npz") in said
    monkeypatch.setenv(data.DATA_VARIABLE, str(tmp_path / "elsewhere"))
    assert "elsewhere" in _use(arguments, capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.tensorflow
def test_mnist_that_cannot_be_downloaded(tmp_path, capsys, monkeypatch):
    import keras

    def no_network():
        raise Exception("URL fetch failure")

    monkeypatch.delenv(data.DATA_VARIABLE, raising=False)
    monkeypatch.setattr(keras.datasets.mnist, "load_data", no_network)
    said = _use(["demo", "--dataset", "mnist", "--out", str(tmp_path / "out")], capsys)
    assert "URL fetch failure" in said
    assert "--data" in said
    assert data.DATA_VARIABLE in said


@pytest.mark.tensorflow
@pytest.mark.parametrize("content", ["no zip", "no arrays"])
def test_unreadable_mnist(tmp_path, capsys, content):
    if content == "no zip":
        (tmp_path / "mnist.npz").write_bytes(b"not an archive")
    else:
        np.savez(tmp_path / "mnist.npz", x_train=np.zeros(3))
    arguments = ["demo", "--dataset", "mnist", "--data", str(tmp_path)]
    assert "cannot be read" in _use([*arguments, "--out", str(tmp_path / "out")], capsys)


@pytest.mark.tensorflow
def test_missing_scikit_learn(tmp_path, capsys, monkeypatch):
    for name in ("sklearn", "sklearn.datasets", "sklearn.model_selection"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "keras-sbp[demo]" in _use(["demo", "--out", str(tmp_path / "out")], capsys)


@pytest.mark.tensorflow
def test_unusable_out(tmp_path, capsys):
    (tmp_path / "file").write_text("a file")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("keep me")
    for name in ("file", "file/below", "photos"):
        for restart in ([], ["--restart"]):
            assert name in _use(["demo", "--out", str(tmp_path / name), *restart], capsys)
    assert (tmp_path / "photos" / "a.jpg").exists()


def test_demo_outside_tensorflow(tmp_path, capsys, monkeypatch):
    import keras

    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    said = _use(["demo", "--out", str(tmp_path / "out")], capsys)
    assert "KERAS_BACKEND=tensorflow, received jax" in said
    assert not (tmp_path / "out").exists()
