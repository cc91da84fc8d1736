"""What a command says while it works, and what becomes of errors that nobody foresaw."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from keras_sbp.cli import main
from keras_sbp.cli.output import Output


class RuntimeOfTheirs(Exception):  # noqa: N818
    """As onnxruntime's, which are no RuntimeError."""


@pytest.fixture
def failing(files, monkeypatch):
    """Runs `inspect` with a library that raises what is given."""

    def run(error, *options) -> int:
        def fail(*arguments, **options):
            raise error

        monkeypatch.setattr(importlib.import_module("keras_sbp.pruning"), "prune", fail)
        return main(["inspect", str(files / "plain.keras"), *options])

    return run


def test_an_error_that_nobody_foresaw_is_a_message(failing, capsys):
    assert failing(RuntimeOfTheirs("node 7 " * 1000)) == 1
    said = capsys.readouterr().err
    assert "keras-sbp: RuntimeOfTheirs: node 7" in said
    assert "Traceback" not in said
    assert len(said) < 4000


@pytest.mark.parametrize("error", [RuntimeOfTheirs("node 7"), ValueError("no"), KeyError("k")])
def test_debug_shows_the_traceback(failing, capsys, error):
    error.add_note("what the converter wrote")
    code = failing(error)
    said = capsys.readouterr().err
    assert code in (1, 2)
    assert "Traceback" not in said
    assert failing(error, "--debug") == code
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "what the converter wrote" in said


def test_interruption_and_a_closed_pipe(failing, capsys):
    assert failing(KeyboardInterrupt()) == 130
    assert "interrupted. Nothing was written." in capsys.readouterr().err
    assert failing(BrokenPipeError()) == 0
    assert "keras-sbp:" not in capsys.readouterr().err


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["m.tflite", "m.onnx", "m.xml"])
def test_damaged_files_are_errors_of_their_runtimes(tmp_path, capsys, name):
    (tmp_path / name).write_bytes(b"no model at all")
    assert main(["benchmark", str(tmp_path / name), "--repeats", "1"]) in (1, 2)
    said = capsys.readouterr().err
    assert "keras-sbp: " in said
    assert "Traceback" not in said


def test_benchmark_says_how_far_it_is(files, capsys):
    command = [
        "benchmark",
        str(files / "plain.keras"),
        str(files / "gated.keras"),
        "--repeats",
        "5",
    ]
    assert main([*command, "--no-memory"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "Measuring 2 models ..."
    steps = [line for line in said if "loading and running" in line]
    assert steps[0] == "Measuring 2 models: loading and running, 1 of 5 times (0%)"
    assert steps[-1] == "Measuring 2 models: loading and running, 5 of 5 times (80%)"
    assert said[-1].startswith("Measuring 2 models: ")
    assert said[-1].endswith(" s")
    assert main([*command, "--no-memory", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_quiet_leaves_results_and_errors(files, capsys, refused):
    assert main(["inspect", str(files / "gated.keras"), "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "gate" in captured.out
    assert "does not exist" in refused("inspect", "missing.keras", "--quiet")


def test_on_a_terminal_progress_is_one_line_that_changes(capsys):
    terminal = io.StringIO()
    out = Output(True, sys.stdout)
    out._notes = Console(file=terminal, force_terminal=True, width=100)
    with out.step("Measuring [2]") as tell:
        tell(0.25, "memory of a[1].tflite")
    said = terminal.getvalue()
    assert "Measuring [2]: memory of a[1].tflite (25%)" in said
    assert said.count("\n") <= 3


@pytest.mark.stress
@pytest.mark.tensorflow
def test_a_reader_that_stops_reading_sees_no_traceback(files):
    done = subprocess.run(
        f"{sys.executable} -m keras_sbp inspect {files / 'gated.keras'} --quiet | true",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
