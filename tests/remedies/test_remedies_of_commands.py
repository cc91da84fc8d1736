"""What the command line says to do, done."""

from __future__ import annotations

import importlib
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import Input, Sequential, layers

import keras_sbp
from keras_sbp.cli import main
from tests.remedies.test_remedies_of_extras import brings

pytestmark = pytest.mark.tensorflow

Run = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds `plain.keras`, `x.npz` and files that are no models."""
    model = Sequential([Input((6,), name="x"), layers.Dense(8), layers.Dense(2)])
    model.save(tmp_path / "plain.keras")
    model.save(tmp_path / "old.h5")
    np.savez(tmp_path / "x.npz", x=np.ones((4, 6), "float32"), y=np.ones((4, 2), "float32"))
    whole = (tmp_path / "plain.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(whole[: len(whole) // 2])
    with zipfile.ZipFile(tmp_path / "odd.keras", "w") as archive:
        archive.writestr("config.json", "{")
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", "")
    return tmp_path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Run:
    """Runs a command in the folder and returns what it wrote to the standard error."""
    monkeypatch.chdir(folder)

    def run(command: str, code: int = 0) -> str:
        assert main(command.split()) == code
        return capsys.readouterr().err

    return run


@pytest.mark.remedy("Load it where it comes from and save it again as .keras")
def test_a_file_of_another_format(run: Run) -> None:
    Path("old.keras").write_bytes(Path("old.h5").read_bytes())
    assert "save it again as .keras" in run("inspect old.keras", 2)
    keras.saving.load_model("old.h5", compile=False).save("old.keras")
    run("inspect old.keras")


@pytest.mark.remedy("Get the file again, or save it anew")
@pytest.mark.parametrize("name", ["cut", "odd"])
def test_a_damaged_file(run: Run, name: str) -> None:
    assert "Get the file again" in run(f"inspect {name}.keras", 2)
    keras.saving.load_model("plain.keras").save(f"{name}.keras")
    run(f"inspect {name}.keras")


@pytest.mark.remedy("Pass --overwrite to replace it")
def test_a_target_that_exists(run: Run) -> None:
    for command in (
        "insert plain.keras -o gated.keras",
        "prune plain.keras -o small.keras --rule l2",
        "export plain.keras -o other.keras",
    ):
        run(command)
        assert "Pass --overwrite" in run(command, 2)
        run(f"{command} --overwrite")


def test_what_comes_after_insert(run: Run) -> None:
    run("insert plain.keras -o gated.keras")
    gated = keras.saving.load_model("gated.keras")
    gated.compile("adam", "mse")
    with np.load("x.npz") as data:
        gated.fit(data["x"], data["y"], verbose=0, callbacks=[keras_sbp.SNRMonitor(verbose=0)])
    gated.save("trained.keras")
    run("prune trained.keras -o small.keras")


@pytest.mark.remedy("Pass one of them")
def test_budget_and_fraction(run: Run) -> None:
    command = "prune plain.keras -o small.keras --rule l2"
    assert "Pass one of them" in run(f"{command} --budget macs=0.5 --keep 0.5", 2)
    run(f"{command} --budget macs=0.5")
    run(f"{command} --keep 0.5 --overwrite")


@pytest.mark.remedy("Pass one, or leave the option out")
def test_a_loss_that_takes_no_logits(run: Run) -> None:
    command = "prune plain.keras -o small.keras --overwrite --rule taylor --data x.npz --loss"
    assert "Pass one, or leave the option out" in run(f"{command} mse --from-logits", 2)
    run(f"{command} mse")
    run(f"{command} categorical_crossentropy --from-logits")


class Called(keras.Model):
    """Has a `call` of its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.dense, self.head = layers.Dense(8), layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.head(self.dense(x))


@pytest.mark.remedy("Load the file in Python, where the class is defined")
def test_a_class_of_the_users(run: Run) -> None:
    model = Called(name="mine")
    model(np.ones((4, 6), "float32"))
    model.save("called.keras")
    assert "where the class is defined" in run("inspect called.keras", 2)
    again = keras.saving.load_model("called.keras", custom_objects={"Called": Called})
    keras_sbp.insert_sbp(again)


@pytest.mark.remedy("Call keras_sbp from Python instead")
def test_data_for_a_model_with_a_call_of_its_own(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "my_models.py").write_text(
        "import keras\n"
        "@keras.saving.register_keras_serializable('my_models')\n"
        "class Mine(keras.Model):\n"
        "    def __init__(self, **options):\n"
        "        super().__init__(**options)\n"
        "        self.dense = keras.layers.Dense(8)\n"
        "        self.head = keras.layers.Dense(2)\n"
        "    def call(self, x):\n"
        "        return self.head(self.dense(x))\n"
    )
    monkeypatch.syspath_prepend(folder)
    model = importlib.import_module("my_models").Mine()
    x = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    np.savez("eight.npz", x=x)
    model(x)
    model.save("mine.keras")
    command = "prune mine.keras -o small.keras --rule l2 --import my_models"
    for option in ("--reweight", "--verify-data"):
        assert "from Python instead" in run(f"{command} {option} eight.npz", 2)
    model = keras.saving.load_model("mine.keras")
    _, report = keras_sbp.prune(model, keras_sbp.L2Norm(), reweight=x, verify=x)
    assert report.compared[0].values == "given"
    run(command)


@pytest.mark.remedy("Install it: pip install 'keras-sbp[demo]'")
@pytest.mark.parametrize("package", ["sklearn.datasets", "tensorflow"])
def test_demo_without_a_package(run: Run, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert "pip install 'keras-sbp[demo]'" in run("demo --epochs 1 --out demo", 2)
    assert brings("demo", "scikit-learn")
    assert brings("demo", "keras-sbp[tf]")
    assert brings("tf", "tensorflow")
