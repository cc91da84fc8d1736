"""The house: rooms import upwards only, TensorFlow and private Keras stay in their rooms."""

from __future__ import annotations

import ast
import collections
import graphlib
import os
import pathlib
import re
import subprocess
import sys

import pytest

import keras_sbp
from keras_sbp import public
from tools import rooms
from tools.rooms import DOORS, MODULES, PACKAGE, ROOMS, imported, room_of

FILES = sorted(MODULES.values())


def imports_of(path: pathlib.Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports(path: pathlib.Path) -> None:
    room = room_of(path)
    for name in imports_of(path):
        if name.startswith("keras_sbp."):
            imported = name.split(".")[1]
            if imported in ROOMS:
                assert ROOMS.index(imported) <= ROOMS.index(room), f"{room} imports {name}"
        if name.startswith("keras.src"):
            assert path.name == "_keras.py", name
        assert name.split(".")[0] != "keras_hub"
        if name.split(".")[0] in ("tensorflow", "tf_keras", "jax", "torch"):
            allowed = room in ("formats", "integrations", "demo", "cli")
            assert allowed or path.name == "full_precision.py", name
    assert len(path.read_text().splitlines()) < 400


def test_order_of_rooms_in_contributing() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text("utf-8")
    listed = re.search(r"is a row of rooms: (.*?)\. A room", text, re.DOTALL)[1]
    folders = [room for room in ROOMS if room not in DOORS]
    assert re.split(r",\s+", listed) == folders


def test_every_room_is_listed_once() -> None:
    assert sorted(ROOMS) == sorted({room_of(path) for path in FILES})


def test_picture_of_rooms_is_that_of_the_code() -> None:
    assert rooms.PICTURE.read_text("utf-8") == rooms.picture(), "run: python -m tools.rooms"
    assert "docs/images/rooms.svg" in (PACKAGE.parent / "CONTRIBUTING.md").read_text("utf-8")


def test_picture_has_the_rooms_in_order_and_every_import() -> None:
    drawn = rooms.picture()
    named = re.findall(r'font-weight="bold" fill="#\w+">(\w+)<', drawn)
    assert named == ROOMS[::-1]
    said = set(re.findall(r"<title>(\w+) imports (\w+)</title>", drawn))
    assert said == rooms.imports()
    assert {("rules", "distributions"), ("cli", "public"), ("__init__", "version")} <= said
    assert ("rules", "layers") not in said


def test_warnings_are_given_where_they_find_the_users_line() -> None:
    giving = [path.name for path in FILES if "warnings.warn" in path.read_text()]
    assert giving == ["telling.py"]


@pytest.mark.parametrize(
    "source, module",
    [
        ("import keras_sbp.program.trace", "keras_sbp.program.trace"),
        ("from keras_sbp.program import units", "keras_sbp.program.units"),
        ("from keras_sbp.program import read", "keras_sbp.program"),
        ("if TYPE_CHECKING:\n    from keras_sbp.telling import warn", "keras_sbp.telling"),
        ("def late():\n    from keras_sbp.telling import warn", "keras_sbp.telling"),
    ],
)
def test_imports_are_seen_wherever_they_stand(source: str, module: str) -> None:
    assert imported(source) == {module}


def test_no_import_cycles() -> None:
    graph = {name: imported(path.read_text()) for name, path in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


# Why these stand alone.
SHORT_AND_READ_ONCE = {
    "keras_sbp.handlers.constant": "every handler has a file, and is imported to be registered",
}


def test_short_modules_have_several_readers() -> None:
    """What one other module needs, and takes few lines, stands in that module."""
    readers = collections.Counter(name for path in FILES for name in imported(path.read_text()))
    short = {
        name
        for name, path in MODULES.items()
        if path.name != "__init__.py" and len(path.read_text().splitlines()) < 40
    }
    assert {name for name in short if readers[name] == 1} == SHORT_AND_READ_ONCE.keys()


def test_import_changes_no_global_state_and_loads_nothing_heavy() -> None:
    script = (
        "import os, sys, logging, warnings, keras\n"
        "before = dict(os.environ), list(warnings.filters), logging.root.handlers[:], "
        "keras.config.floatx(), keras.config.dtype_policy().name\n"
        "loaded = set(sys.modules)\n"
        "import keras_sbp\n"
        "after = dict(os.environ), list(warnings.filters), logging.root.handlers[:], "
        "keras.config.floatx(), keras.config.dtype_policy().name\n"
        "assert before == after\n"
        "new = {m.split('.')[0] for m in set(sys.modules) - loaded}\n"
        "print(sorted(new & {'scipy', 'sklearn', 'matplotlib', 'onnx', 'tensorflow'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"KERAS_BACKEND": "jax"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_public_names() -> None:
    assert sorted([*public.__all__, "__version__"]) == sorted(keras_sbp.__all__)
    assert sorted(keras_sbp.__all__) == [
        "BMRSNormal",
        "BMRSUniform",
        "BatchNormScale",
        "Budget",
        "GradualPruning",
        "KLWarmup",
        "L1Norm",
        "L2Norm",
        "LayerHandler",
        "LayerInputChange",
        "Random",
        "SBPLayer",
        "SNRMonitor",
        "SNRThreshold",
        "Taylor",
        "__version__",
        "benchmark",
        "compress",
        "distributions",
        "export",
        "gates_report",
        "handlers",
        "insert_sbp",
        "integrations",
        "prune",
        "register_handler",
        "rules",
        "shrink",
        "sweep",
        "testing",
    ]
