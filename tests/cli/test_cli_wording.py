"""Messages of the library name options where the command line shows them."""

from __future__ import annotations

import ast
import pathlib
import re
from collections.abc import Iterator

import pytest

import keras_sbp
from keras_sbp.cli import main
from keras_sbp.cli.errors import in_options, with_options

PRUNE = ("--min-keep", "--round-to", "--strict", "--no-verify", "--verify-data", "--keep")
INSERT = "keras-sbp insert with --tie-residual"
EXPORT = ("--quantization", "--calibration", "--batch-size", "--no-verify", "--overwrite")


@pytest.mark.parametrize(
    ("flags", "python", "said"),
    [
        (PRUNE, "pass Budget(..., min_keep=1) if", "pass --min-keep 1 if"),
        (PRUNE, "`min_keep`. Received: min_keep=-1.5.", "--min-keep. Received: --min-keep -1.5."),
        (PRUNE, "with strict=True, or pass strict=False.", "with --strict, or pass no --strict."),
        (PRUNE, "verify=examples, or verify=False", "--verify-data FILE.npz, or --no-verify"),
        (PRUNE, "keras_sbp.insert_sbp with tie_residual=True", INSERT),
        (PRUNE, "Call keras_sbp.prune(model, axis=1)", "Call keras_sbp.prune(model, axis=1)"),
        (PRUNE, "Pass Other(..., axis=1), `axis` of 1", "Pass Other(..., axis=1), `axis` of 1"),
        (EXPORT, "verify=examples, or verify=False", "verify=examples, or --no-verify"),
        (EXPORT, "quantization='int8', batch_size=None", "--quantization int8, --batch-size free"),
        (EXPORT, "Pass overwrite=True and min_keep=1", "Pass --overwrite and min_keep=1"),
        ((), "Pass overwrite=True, keras_sbp.prune", "Pass overwrite=True, keras_sbp.prune"),
    ],
)
def test_arguments_become_options_where_the_command_has_them(flags, python, said):
    with with_options(flags):
        assert in_options(python) == said


def _messages() -> Iterator[str]:
    """What errors and warnings of the library say, piece by piece."""
    for path in pathlib.Path(keras_sbp.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            warns = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "warn"
            if isinstance(node, ast.Raise | ast.Return) or warns:
                for piece in ast.walk(node):
                    if isinstance(piece, ast.Constant) and isinstance(piece.value, str):
                        yield piece.value


def test_no_message_advises_an_argument_that_is_an_option(capsys):
    flags = set()
    for command in ("inspect", "insert", "prune", "export", "benchmark"):
        assert main([command, "--help"]) == 0
        flags |= set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    names = "|".join(flag[2:].replace("-", "_") for flag in flags)
    advised = re.compile(rf"\b({names}|verify|representative_data)=(True|False|None|\d)")
    found = [text for text in _messages() if advised.search(text)]
    assert len(found) > 10
    with with_options(flags):
        assert not [text for text in found if advised.search(in_options(text))]


def test_a_command_says_its_own_options(files, tmp_path, capsys):
    command = ["prune", str(files / "plain.keras"), "-o", str(tmp_path / "s.keras"), "--rule", "l1"]
    assert main([*command, "--budget", "macs=0.0001"]) == 2
    assert "keras-sbp insert with --tie-residual gates residual" in capsys.readouterr().err
    assert main([*command, "--keep", "2"]) == 2
    assert "L1Norm expected --keep to be a fraction" in capsys.readouterr().err
    assert in_options("`keep`") == "`keep`"
