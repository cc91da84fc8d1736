"""The wheel works where there is no checkout, and the README's journey with it.

The journey is slow: half a minute, as it trains twice and exports. The rest takes seconds.
"""

from __future__ import annotations

import pathlib
import zipfile

import pytest

import keras_sbp
from tests.pages import ROOT, blocks
from tests.wheel import Installed

WHERE = """
import importlib.metadata, pathlib, keras_sbp
print(keras_sbp.__file__)
print((pathlib.Path(keras_sbp.__file__).parent / "py.typed").is_file())
print(keras_sbp.__version__, importlib.metadata.version("keras-sbp"))
"""


def test_wheel_has_the_package_and_nothing_else(installed: Installed) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    assert "keras_sbp/py.typed" in names
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "keras_sbp").rglob("*.py")}
    others = {name for name in names if ".dist-info/" not in name}
    assert others == package | {"keras_sbp/py.typed"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_it_is_the_wheel_that_is_imported(installed: Installed, tmp_path: pathlib.Path) -> None:
    done = installed.run("python", "-c", WHERE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    file, typed, versions = done.stdout.splitlines()
    assert pathlib.Path(file).is_relative_to(installed.environment)
    assert typed == "True"
    assert versions == f"{keras_sbp.__version__} {keras_sbp.__version__}"


def test_command_is_installed(installed: Installed, tmp_path: pathlib.Path) -> None:
    done = installed.run("keras-sbp", "--version", cwd=tmp_path)
    assert keras_sbp.__version__ in done.stdout, done.stderr


@pytest.mark.stress
@pytest.mark.tensorflow
def test_journey_of_the_readme(installed: Installed, tmp_path: pathlib.Path) -> None:
    """All of the README's code that is meant to run, as a user's script."""
    code = [text for _, text in blocks((ROOT / "README.md").read_text("utf-8"), "python")]
    assert len(code) >= 3
    (tmp_path / "journey.py").write_text("\n".join([*code, "print(keras_sbp.__file__)"]), "utf-8")
    done = installed.run("python", "journey.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert pathlib.Path(done.stdout.splitlines()[-1]).is_relative_to(installed.environment)
    assert (tmp_path / "small.tflite").stat().st_size > 0
