"""Models with classes of the user's own, which a module registers."""

from __future__ import annotations

import importlib
import json
import sys

import keras
import numpy as np
import pytest

from keras_sbp.cli import main

MODULE = """
import keras

print("imported")

@keras.saving.register_keras_serializable("own_module")
class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x

    def compute_output_shape(self, input_shape):
        return input_shape
"""


def _forget() -> None:
    sys.modules.pop("my_layers", None)
    keras.saving.get_custom_objects().pop("own_module>Doubled", None)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with `my_layers.py`, and `m.keras`, which only that module can load."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_layers.py").write_text(MODULE)
    importlib.invalidate_caches()
    sys.path.insert(0, str(tmp_path))
    doubled = importlib.import_module("my_layers").Doubled
    inputs = keras.Input((6,), name="x")
    hidden = keras.layers.Dense(8, activation="relu", name="hidden")(inputs)
    keras.Model(inputs, keras.layers.Dense(3)(doubled()(hidden))).save("m.keras")
    sys.path.remove(str(tmp_path))
    _forget()
    yield tmp_path
    _forget()


@pytest.mark.remedy("Name with --import MODULE the module that registers it")
@pytest.mark.parametrize(
    "command",
    [
        "inspect m.keras --rule l2",
        "insert m.keras -o out.keras",
        "prune m.keras -o out.keras --rule l2 --keep 0.5",
        pytest.param("export m.keras -o out.tflite", marks=pytest.mark.tensorflow),
        "benchmark m.keras --repeats 1",
    ],
)
def test_a_module_that_is_named_makes_its_classes_known(folder, capsys, command):
    words = command.split()
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "Doubled" in said
    assert "--import MODULE" in said
    assert main([*words, "--import", "my_layers", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_a_model_with_own_classes_stays_the_same_function(folder):
    command = "prune m.keras -o small.keras --rule l2 --keep 0.5 --import json --import my_layers"
    assert main(command.split()) == 0
    large, small = (keras.saving.load_model(name) for name in ("m.keras", "small.keras"))
    assert small.get_layer("hidden").units == 4 or small.count_params() == large.count_params()
    assert small(np.ones((2, 6))).shape == (2, 3)


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (None, "no_such_module", "there is no such module"),
        (None, "my_layers.py", "without '.py'"),
        ("raise KeyError('oh')", "broken_a", "importing the module fails with KeyError: 'oh'"),
        ("import no_such_package", "broken_b", "ModuleNotFoundError: No module named 'no_such_pa"),
        ("import sys; sys.exit(3)", "broken_c", "fails with SystemExit: 3"),
        ("def f(:", "broken_d", "fails with SyntaxError"),
    ],
)
def test_a_module_that_cannot_be_imported(folder, refused, content, name, said):
    if content is not None:
        (folder / f"{name}.py").write_text(content)
        importlib.invalidate_caches()
    assert said in refused("inspect", "m.keras", "--import", name)


def test_a_module_that_was_mended(folder, refused):
    (folder / "broken_e.py").write_text("import my_layers\nraise KeyError('oh')")
    importlib.invalidate_caches()
    assert "Mend the module" in refused("inspect", "m.keras", "--import", "broken_e")
    (folder / "broken_e.py").write_text("import my_layers")
    importlib.invalidate_caches()
    assert main(["inspect", "m.keras", "--rule", "l2", "--import", "broken_e"]) == 0


def test_what_a_module_does_not_register_stays_unknown(folder, refused):
    (folder / "other.py").write_text("")
    importlib.invalidate_caches()
    assert "Doubled" in refused("inspect", "m.keras", "--import", "other")
