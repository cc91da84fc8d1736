"""What a type checker sees of the package where its wheel is installed."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from tests.wheel import Installed

RIGHT = """
from typing import Any, assert_type
import keras
import numpy as np
import keras_sbp
from keras_sbp import SBPLayer, prune


def journey(model: keras.Model) -> keras.Model:
    gated = keras_sbp.insert_sbp(model, kl_weight="macs")
    gated.fit(callbacks=[keras_sbp.SNRMonitor(), keras_sbp.KLWarmup(5)])
    small, report = prune(gated, keras_sbp.Budget(macs=0.5), round_to=8)
    assert_type(report.params_after, int)
    assert_type(SBPLayer(axis=None).units, int)
    for gate in report.gates:
        assert_type(gate.units_after, int)
    return small


class MeanThreshold(keras_sbp.rules.PosteriorRule):
    def keep(self, posterior: keras_sbp.distributions.TruncatedLogNormal) -> Any:
        return posterior.mean() > 0.01

    def scores(self, posterior: keras_sbp.distributions.TruncatedLogNormal) -> Any:
        return posterior.mean()
"""
WRONG = """
import keras
import keras_sbp

keras_sbp.prune(keras.Model(), verfy=True)
keras_sbp.L1Norm(keep="half")
"""
# What is not ours, and takes long to read.
CONFIG = """
[mypy]
[mypy-jax.*,keras.*,matplotlib.*,onnx.*,tensorflow.*,torch.*]
follow_imports = skip
follow_imports_for_stubs = True
ignore_missing_imports = True
"""


def mypy(installed: Installed, folder: pathlib.Path, script: str) -> str:
    (folder / "script.py").write_text(script)
    (folder / "mypy.ini").write_text(CONFIG)
    command = [sys.executable, "-m", "mypy", "--strict", "script.py", "--python-executable"]
    cache = installed.wheel.parent / "cache"
    done = subprocess.run(
        [*command, installed.python, "--cache-dir", cache],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


@pytest.mark.stress
def test_a_script_sees_the_types(installed: Installed, tmp_path: pathlib.Path) -> None:
    assert mypy(installed, tmp_path, RIGHT).startswith("Success"), mypy(installed, tmp_path, RIGHT)


@pytest.mark.stress
def test_a_wrong_call_is_seen(installed: Installed, tmp_path: pathlib.Path) -> None:
    said = mypy(installed, tmp_path, WRONG)
    assert 'script.py:5: error: Unexpected keyword argument "verfy" for "prune"' in said
    assert 'script.py:6: error: Argument "keep" to "L1Norm" has incompatible type "str"' in said
