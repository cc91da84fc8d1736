"""Importing the package: all of it once Keras is there, none of it for the help of a command."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

ALL_HELP = """
import sys
sys.argv = {argv}
from keras_sbp.cli import main
assert main(['--help']) == main(['--version']) == 0
for command in ('inspect', 'insert', 'prune', 'export', 'benchmark', 'demo'):
    assert main([command, '--help']) == 0
assert main(['prune', '--nonsense']) == 2
print([m for m in sys.modules if m.split('.')[0] in ('keras', 'tensorflow', 'jax')])
"""

LAZY = """
import sys
sys.argv = ["keras-sbp"]
import keras_sbp
assert "SBPLayer" in dir(keras_sbp)
assert not hasattr(keras_sbp, "__wrapped__") and "keras" not in sys.modules
from keras_sbp.rules.rule import Rule
assert keras_sbp.rules.Rule is Rule
from keras_sbp import *
import keras
assert keras.saving.get_registered_object("keras_sbp>SBPLayer") is SBPLayer is keras_sbp.SBPLayer
"""

EAGER = """
import sys
sys.argv = {argv}
import keras_sbp, keras
layer = keras.saving.get_registered_object("keras_sbp>SBPLayer")
assert layer is vars(keras_sbp)["SBPLayer"]
"""


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"KERAS_BACKEND": "numpy"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.stress
@pytest.mark.parametrize("argv", [["/usr/bin/keras-sbp"], ["keras-sbp.exe"], ["-m"]], ids=str)
def test_help_imports_no_keras(argv):
    assert run(ALL_HELP.format(argv=argv)).splitlines()[-1] == "[]"


@pytest.mark.stress
def test_names_come_on_first_use_under_the_command_line():
    run(LAZY)


@pytest.mark.stress
@pytest.mark.parametrize("argv", [["train.py"], [""], ["-c"], []], ids=str)
def test_import_registers_the_layers_everywhere_else(argv):
    run(EAGER.format(argv=argv))


def test_an_unknown_name_is_an_attribute_error():
    import keras_sbp

    with pytest.raises(AttributeError, match="module 'keras_sbp' has no attribute 'nonsense'"):
        keras_sbp.nonsense  # noqa: B018
    assert set(keras_sbp.__all__) <= set(dir(keras_sbp))
