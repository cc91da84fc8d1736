"""The demonstrations, made small: they run through, check themselves, and resume."""

from __future__ import annotations

import dataclasses
import json

import keras
import pytest

from keras_sbp.cli import main
from keras_sbp.cli.demo import demonstrate
from keras_sbp.demo import recipes
from keras_sbp.demo.recipes import DIGITS, MNIST, Targets
from keras_sbp.demo.training import Checkpoints
from keras_sbp.layers import SBPLayer

pytestmark = pytest.mark.tensorflow

TABLE = ("test accuracy", "parameters", "MACs", ".tflite bytes", "LiteRT latency")


def tiny(gated: bool) -> keras.Model:
    """A network with one gate: tracing the four of LeNet takes longer than these tests should."""
    parts = [keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(6)]
    gates = [SBPLayer(name="gate")] if gated else []
    return keras.Sequential([*parts, *gates, keras.layers.Dense(10)])


@pytest.fixture
def tiny_mnist(monkeypatch) -> recipes.Recipe:
    """`--dataset mnist` with the tiny network."""
    recipe = dataclasses.replace(MNIST, build=tiny)
    monkeypatch.setitem(recipes.RECIPES, "mnist", recipe)
    return recipe


@pytest.fixture
def epochs_run(monkeypatch):
    """Which epochs are trained, in order, over all networks and runs."""
    seen = []
    original = Checkpoints.on_epoch_end

    def recorded(self, epoch, logs=None):
        original(self, epoch, logs)
        seen.append(epoch)

    monkeypatch.setattr(Checkpoints, "on_epoch_end", recorded)
    return seen


@pytest.mark.stress
def test_digits_in_small(tmp_path, capsys):
    recipe = dataclasses.replace(DIGITS, baseline_epochs=1, gated_epochs=1, batch_size=256)
    assert demonstrate(recipe, tmp_path / "out", enforce=False) == 0
    said = capsys.readouterr().out
    for row in TABLE:
        assert row in said
    assert "MISSED fewer MACs: 1.0x, at least 8x wanted" in said
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["units"]["gate_dense"] == {"before": 128, "kept": 128}
    assert results["pruned"]["accuracy"] == results["pruned"]["keras_accuracy"]
    assert results["pruned"]["accuracy"] == pytest.approx(results["gated_accuracy"], abs=1e-9)
    assert results["versions"]["keras"] == keras.__version__
    for name in ("ungated.tflite", "pruned.tflite", "pruned.keras", "pruned_saved_model"):
        assert (tmp_path / "out" / name).exists()


def test_a_missed_target_is_1(tiny_mnist, mnist_folder, tmp_path, monkeypatch, capsys):
    def run(targets: Targets) -> int:
        monkeypatch.setitem(
            recipes.RECIPES, "mnist", dataclasses.replace(tiny_mnist, targets=targets)
        )
        out = str(tmp_path / "out")
        command = ["demo", "--dataset", "mnist", "--data", str(mnist_folder), "--out", out]
        return main([*command, "--epochs", "1"])

    assert run(Targets(macs_ratio=1e6, cpu_seconds=1e6)) == 1
    said = capsys.readouterr().out
    assert "MISSED fewer MACs" in said
    assert "met    processor time" in said
    assert run(Targets(cpu_seconds=1e6)) == 0


@pytest.mark.stress
def test_mnist_resumes_after_an_interruption(
    tiny_mnist, mnist_folder, tmp_path, monkeypatch, epochs_run
):
    out = tmp_path / "out"
    command = ["demo", "--dataset", "mnist", "--data", str(mnist_folder), "--out", str(out)]
    command += ["--epochs", "3"]
    recorded = Checkpoints.on_epoch_end

    def interrupted(self, epoch, logs=None):
        recorded(self, epoch, logs)
        if len(epochs_run) == 5:  # The baseline is finished; the gated network has two epochs.
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "on_epoch_end", interrupted)
    assert main(command) == 130
    assert epochs_run == [0, 1, 2, 0, 1]
    assert (out / "baseline.keras").exists()
    assert not (out / "gated.keras").exists()
    monkeypatch.setattr(Checkpoints, "on_epoch_end", recorded)
    assert main(command) == 1, "noise and three epochs cannot meet the targets"
    assert epochs_run == [0, 1, 2, 0, 1, 2], "only the missing epoch is trained"
    results = json.loads((out / "results.json").read_text())
    assert results["epochs"] == {"ungated": 3, "gated": 3}
    assert results["units"] == {"gate": {"before": 6, "kept": 6}}
    assert not list(out.rglob("epoch-*")), "checkpoints are removed at the end"
    main(command)
    assert len(epochs_run) == 6, "a finished run trains nothing"


@pytest.mark.remedy("Choose another folder, or start over with --restart", "Choose another folder")
def test_one_folder_holds_one_run(tiny_mnist, mnist_folder, tmp_path, capsys, epochs_run):
    out = tmp_path / "out"
    command = ["demo", "--dataset", "mnist", "--data", str(mnist_folder), "--out", str(out)]
    main([*command, "--epochs", "1"])
    assert main([*command, "--epochs", "2"]) == 2
    assert "other settings" in capsys.readouterr().err
    assert len(epochs_run) == 2
    main([*command, "--epochs", "1", "--restart"])
    assert len(epochs_run) == 4
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "file").write_text("mine")
    command[-1] = str(foreign)
    assert main([*command, "--epochs", "1"]) == 2
    assert "Choose another folder." in capsys.readouterr().err
