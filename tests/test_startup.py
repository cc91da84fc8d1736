"""Importing the package: all of it once Keras is there, none of it for the help of a command."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

KNOWN = "import keras; layer = keras.saving.get_registered_object('keras_sbp>SBPLayer')\n"


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


def test_help_imports_no_keras():
    said = run(
        "import sys\n"
        "from keras_sbp.cli import main\n"
        "assert main(['--help']) == main(['--version']) == 0\n"
        "for command in ('inspect', 'insert', 'prune', 'export', 'benchmark', 'demo'):\n"
        "    assert main([command, '--help']) == 0\n"
        "assert main(['prune', '--nonsense']) == 2\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('keras', 'tensorflow', 'jax')])\n"
    )
    assert said.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "script",
    [
        "import keras_sbp\n" + KNOWN + "assert layer is keras_sbp.SBPLayer",
        "from keras_sbp.selection.rule import Rule\n"
        "import keras_sbp, keras_sbp.selection as rules\n"
        + KNOWN
        + "assert layer is keras_sbp.SBPLayer\n"
        "assert rules.Rule is Rule and rules is keras_sbp.selection\n"
        "assert rules.__spec__.origin == rules.__file__",
        "import keras_sbp\nassert 'SBPLayer' in dir(keras_sbp)\n"
        "from keras_sbp import *\n"
        + KNOWN
        + "assert layer is SBPLayer and prune is keras_sbp.prune",
        "import importlib.util, sys, keras_sbp\n"
        "importlib.util.find_spec('keras')\nassert 'keras' not in sys.modules\n"
        "assert not hasattr(keras_sbp, '__wrapped__') and 'keras' not in sys.modules\n"
        + KNOWN
        + "assert layer is keras_sbp.SBPLayer\n"
        "assert not [f for f in sys.meta_path if 'keras_sbp' in type(f).__module__]",
    ],
    ids=["keras_afterwards", "a_part_first", "everything", "only_looked_for"],
)
def test_all_is_there_and_registered_once_keras_is(script):
    run(script)


def test_an_unknown_name_is_an_attribute_error():
    import keras_sbp

    with pytest.raises(AttributeError, match="module 'keras_sbp' has no attribute 'nonsense'"):
        keras_sbp.nonsense  # noqa: B018
    assert set(keras_sbp.__all__) <= set(dir(keras_sbp))
