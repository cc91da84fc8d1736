"""The package as users get it: a wheel, installed into an environment of its own."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass

from tests.pages import ROOT


@dataclass(frozen=True)
class Installed:
    """A virtual environment that has the wheel.

    Attributes:
        wheel: The file that was installed.
        environment: The environment's folder.
    """

    wheel: pathlib.Path
    environment: pathlib.Path

    @property
    def python(self) -> pathlib.Path:
        return self.environment / "bin" / "python"

    def run(
        self, *command: str | pathlib.Path, cwd: pathlib.Path
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program of the environment, in a folder, without PYTHONPATH."""
        program, *arguments = command
        own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [self.environment / "bin" / program, *arguments],
            cwd=cwd,
            env=own,
            capture_output=True,
            text=True,
            check=False,
        )


def install(folder: pathlib.Path) -> Installed:
    """Builds the wheel and installs it into a new environment.

    What the package depends on is not installed again: a path file lends the packages that this
    Python has. Path files among those are not read, so that the checkout stays out of sight.
    """
    source = folder / "source"
    shutil.copytree(ROOT / "keras_sbp", source / "keras_sbp")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source]
    subprocess.run(build, check=True)
    [wheel] = folder.glob("*.whl")
    result = Installed(wheel, folder / "environment")
    venv.create(result.environment)
    own = [*pip, "--python", result.python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run(own, check=True)
    [packages] = result.environment.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    return result
