"""The commands do what the functions do, and say it to people and to scripts."""

from __future__ import annotations

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_sbp.cli import main
from keras_sbp.layers import find_gates

COMMANDS = ("inspect", "compress", "insert", "prune", "export", "benchmark", "demo")


def run(*arguments) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def answer(capsys, *arguments) -> dict:
    capsys.readouterr()
    run(*arguments, "--json")
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command, capsys):
    assert main([command, "--help"]) == 0
    assert f"keras-sbp {command}" in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert command in capsys.readouterr().out


def test_inspect(files, capsys):
    found = answer(capsys, "inspect", files / "gated.keras")
    gate = keras.saving.load_model(files / "gated.keras").get_layer("gate")
    assert found["gates"] == [
        {
            "name": "gate",
            "units": 8,
            "kept": 5,
            "frozen": 0,
            "rule": "SNRThreshold(threshold=1.0)",
            "snr": {
                f"p{round(100 * q)}": pytest.approx(np.quantile(gate.snr(), q))
                for q in (0.05, 0.5, 0.95)
            },
        }
    ]
    assert found["macs_before"] == 16 * 9 * 2 * 8 + 16 * 8 * 3
    assert found["macs_after"] == 16 * 9 * 2 * 5 + 16 * 5 * 3
    assert [layer["gates"] for layer in found["gates_of_layers"]] == [["gate"], []]
    run("inspect", files / "gated.keras")
    captured = capsys.readouterr()
    assert "8 → 5" in captured.out
    assert "its units are an output of the model" in captured.out
    assert "Loading" in captured.err
    assert "Loading" not in captured.out


def test_inspect_asks_the_rule_that_is_named(files, capsys):
    rule = ("--rule", "snr", "--threshold")
    found = answer(capsys, "inspect", files / "gated.keras", *rule, 0.1)
    assert found["gates"][0]["kept"] == 8
    command = ["inspect", str(files / "gated.keras"), *rule, "1e6", "--json"]
    assert main(command) == 1
    assert "would not depend on the input" in json.loads(capsys.readouterr().out)["problem"]


def test_inspect_without_gates(files, capsys):
    assert answer(capsys, "inspect", files / "plain.keras")["gates"] == []
    run("inspect", files / "plain.keras")
    assert "keras-sbp insert" in capsys.readouterr().out
    found = answer(capsys, "inspect", files / "plain.keras", "--rule", "l2", "--keep", 0.25)
    assert found["layers"][1]["units_after"] == 2


def test_prune(files, tmp_path, capsys):
    found = answer(capsys, "prune", files / "gated.keras", "-o", tmp_path / "small.keras")
    gated = keras.saving.load_model(files / "gated.keras")
    small = keras.saving.load_model(tmp_path / "small.keras")
    assert small.get_layer("conv").filters == 5
    assert found["params_after"] == small.count_params()
    assert found["bytes"] == (tmp_path / "small.keras").stat().st_size
    x = np.load(files / "x.npz")["x"]
    np.testing.assert_allclose(small(x), gated(x, training=False), atol=1e-6)


def test_prune_compares_on_given_data(files, tmp_path, capsys):
    command = ("prune", files / "gated.keras", "-o", tmp_path / "small.keras")
    [compared] = answer(capsys, *command, "--verify-data", files / "x.npz")["compared"]
    assert compared["values"] == "given"
    assert compared["shape"] == [32, 6, 6, 2]


def test_export_compares_on_given_data(files, tmp_path, capsys):
    command = ("export", files / "plain.keras", "-o", tmp_path / "m.keras")
    found = answer(capsys, *command, "--verify-data", files / "x.npz")
    [compared] = found["compared"]
    assert (compared["values"], compared["shape"]) == ("given", [32, 6, 6, 2])
    assert found["variation"] > 0.1
    np.savez(tmp_path / "same.npz", x=np.ones((4, 6, 6, 2)))
    command = (*command, "--overwrite", "--verify-data", tmp_path / "same.npz")
    run(*command)
    told = capsys.readouterr().err
    assert "hardly changes with the inputs" in told
    assert "Give examples that differ more" in told


def test_prune_compares_on_given_words(tmp_path, capsys):
    inputs = keras.Input((2,), dtype="string", name="words")
    tokens = keras.layers.StringLookup(vocabulary=["a", "b"])(inputs)
    x = keras.layers.Flatten()(keras.layers.Embedding(3, 4)(tokens))
    x = keras.layers.Dense(2)(keras.layers.Dense(8)(x))
    keras.Model(inputs, x).save(tmp_path / "m.keras")
    np.savez(tmp_path / "x.npz", words=np.array([["a", "b"], ["b", "?"]]))
    command = ("prune", tmp_path / "m.keras", "-o", tmp_path / "small.keras", "--rule", "l2")
    [compared] = answer(capsys, *command, "--verify-data", tmp_path / "x.npz")["compared"]
    assert (compared["name"], compared["shape"], compared["values"]) == ("words", [2, 2], "given")


@pytest.mark.parametrize(
    ("options", "filters"),
    [
        ("--rule l1 --keep 0.25", 2),
        ("--rule l2 --keep 0.25 --round-to 4", 4),
        ("--rule random --keep 0.5 --seed 3", 4),
        ("--rule l2 --budget macs=0.5", 4),
        ("--rule l2 --budget macs=0.2 --min-keep 1", 1),
        ("--rule l1 --budget params=0.3 --reweight X", 2),
        ("--rule input-change --keep 0.5 --data X", 4),
        ("--rule input-change --budget macs=0.5 --data X", 4),
        ("--rule taylor --keep 0.5 --data X --loss sparse_categorical_crossentropy", 4),
        (
            "--rule taylor --data X --loss sparse_categorical_crossentropy --from-logits "
            "--batch-size 8",
            4,
        ),
        ("--rule input-change --data X --variant layer --no-reweight --ridge 1e-3", 4),
    ],
)
def test_prune_by_rules_without_gates(files, tmp_path, options, filters):
    words = [files / "x.npz" if word == "X" else word for word in options.split()]
    run("prune", files / "plain.keras", "-o", tmp_path / "small.keras", *words)
    assert keras.saving.load_model(tmp_path / "small.keras").get_layer("conv").filters == filters


@pytest.mark.parametrize(
    ("options", "filters"),
    [
        ("--rule snr --threshold 0.1", 8),
        ("--rule bmrs-normal", 8),
        ("--rule bmrs-normal --threshold -0.92", 5),
        ("--rule bmrs-normal --log-mean -20 --sigma 1e-3 --threshold -0.92", 5),
        ("--rule bmrs-uniform --bits 1", 5),
        ("--budget macs=0.5", 4),
    ],
)
def test_prune_by_posteriors(files, tmp_path, options, filters):
    run("prune", files / "gated.keras", "-o", tmp_path / "small.keras", *options.split())
    assert keras.saving.load_model(tmp_path / "small.keras").get_layer("conv").filters == filters


def test_insert(files, tmp_path, capsys):
    target = tmp_path / "gated.keras"
    found = answer(capsys, "insert", files / "plain.keras", "-o", target, "--num-samples", 100)
    assert found["gates"] == [{"name": "conv_gate", "units": 8}]
    of_layers = {layer["name"]: layer for layer in found["gates_of_layers"]}
    assert of_layers["conv"]["gates"] == ["conv_gate"]
    assert of_layers["probabilities"]["reason"] == "its units are an output of the model"
    shown = tmp_path / "shown.keras"
    run("insert", files / "plain.keras", "-o", shown)
    assert "its units are an output of the model" in capsys.readouterr().out
    gated = keras.saving.load_model(target)
    (gate,) = find_gates(gated)
    assert gate.num_samples == 100
    weights = keras.saving.load_model(files / "plain.keras").get_layer("conv").get_weights()
    for old, new in zip(weights, gated.get_layer("conv").get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_insert_passes_its_options_on(tmp_path, capsys):
    x = inputs = keras.Input((8, 8, 4))
    for name in "ab":
        y = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name=f"{name}1")(x)
        x = keras.layers.Add()([x, keras.layers.Conv2D(4, 3, padding="same", name=f"{name}2")(y)])
    outputs = keras.layers.Dense(2, name="out")(keras.layers.GlobalAveragePooling2D()(x))
    keras.Model(inputs, outputs).save(tmp_path / "m.keras")

    def gates(*options) -> list[str]:
        command = ("insert", tmp_path / "m.keras", "-o", tmp_path / "g.keras", "--overwrite")
        return [gate["name"] for gate in answer(capsys, *command, *options)["gates"]]

    assert gates() == ["a1_gate", "b1_gate"]
    assert gates("--layers", "a1") == ["a1_gate"]
    assert gates("--exclude", "a1") == ["b1_gate"]
    assert len(gates("--gate", "branch")) == 2
    gates("--kl-weight", "macs", "--placement", "layer")
    gated = keras.saving.load_model(tmp_path / "g.keras")
    assert [layer.name for layer in gated.layers].index("a1_gate") > 0


@pytest.mark.tensorflow
def test_export(files, tmp_path, capsys):
    target = tmp_path / "small.tflite"
    found = answer(capsys, "export", files / "gated.keras", "-o", target)
    assert found["bytes"] == target.stat().st_size
    assert found["ops"] == ["CONV_2D", "RESHAPE", "FULLY_CONNECTED", "SOFTMAX"]
    assert found["max_abs_error"] < 1e-5
    assert found["prune_report"]["units_after"] < found["prune_report"]["units_before"]
    run("export", files / "gated.keras", "-o", target, "--overwrite", "--batch-size", 4)
    assert "CONV_2D (1)" in capsys.readouterr().out


@pytest.mark.tensorflow
def test_export_in_integers(files, tmp_path, capsys):
    command = ("export", files / "gated.keras", "-o", tmp_path / "small.tflite", "--overwrite")
    command += ("--quantization", "int8", "--calibration", files / "x.npz")
    assert "QUANTIZE" in answer(capsys, *command)["ops"]
    ops = answer(capsys, *command, "--integer-io")["ops"]
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(ops)


@pytest.mark.tensorflow
def test_benchmark(files, tmp_path, capsys):
    paths = [tmp_path / f"{name}.tflite" for name in ("plain", "gated")]
    for path in paths:
        run("export", files / f"{path.stem}.keras", "-o", path)
    command = ("benchmark", *paths, "--repeats", 5, "--no-memory")
    rows = answer(capsys, *command)["rows"]
    assert [row["bytes"] for row in rows] == [path.stat().st_size for path in paths]
    assert rows[0]["speedup"] == 1
    run(*command)
    assert [row["name"] for row in rows] == ["plain.tflite", "gated.tflite"]
    assert "faster" in capsys.readouterr().out


@pytest.mark.stress
@pytest.mark.tensorflow
def test_results_alone_are_on_the_standard_output(files, tmp_path):
    """TensorFlow writes to the process's own streams; so this needs a process."""
    done = subprocess.run(
        [sys.executable, "-m", "keras_sbp", "export", files / "plain.keras"]
        + ["-o", tmp_path / "saved", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["format"] == "saved_model"
    assert "Exporting" in done.stderr


@pytest.mark.stress
def test_what_reads_the_output_may_stop_reading(files):
    done = subprocess.run(
        f"{sys.executable} -m keras_sbp inspect {files / 'gated.keras'} --json | true",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr


def test_numbers_that_json_does_not_know_are_null(capsys):
    from keras_sbp.cli.output import output

    with output(True) as out:
        print("noise", end="")  # noqa: T201
        out.result({"a": [float("nan"), np.float32(1.5), np.inf], "b": (np.int64(2), None)})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"a": [None, 1.5, None], "b": [2, None]}
    assert captured.err == "noise"


def test_a_fitted_model_is_loaded(tmp_path, capsys):
    """Its file tells what the model was compiled with, and holds the optimizer's variables."""
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(8, activation="relu", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(hidden))
    model.compile(keras.optimizers.AdamW(1e-3), "mse", metrics=["mae"])
    model.fit(np.ones((4, 6)), np.ones((4, 3)), verbose=0)
    model.save(tmp_path / "fitted.keras")
    run("insert", tmp_path / "fitted.keras", "-o", tmp_path / "gated.keras")
    assert answer(capsys, "inspect", tmp_path / "gated.keras")["gates"][0]["units"] == 8
