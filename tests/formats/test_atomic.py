"""A process killed in the middle of an export leaves the old file or none, never half of one."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys

import pytest

import keras_sbp

ATOMIC = pathlib.Path(keras_sbp.__file__).parent / "formats" / "atomic.py"

# Runs `staged` on its own, without Keras, and kills itself at the n-th call that touches the disk.
CHILD = """
import importlib.util, os, pathlib, shutil, signal, sys
spec = importlib.util.spec_from_file_location("atomic", sys.argv[1])
atomic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(atomic)
target, kind, fatal = pathlib.Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
calls = 0

def deadly(function):
    def wrapped(*args, **kwargs):
        global calls
        calls += 1
        if calls == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapped

for name in ("fsync", "rename", "replace", "rmdir", "unlink"):
    setattr(os, name, deadly(getattr(os, name)))
shutil.rmtree = deadly(shutil.rmtree)

with atomic.staged(target) as written:
    if kind == "folder":
        written.mkdir()
        (written / "saved_model.pb").write_text("new")
        (written / "variables").mkdir()
        deadly(lambda: None)()
        (written / "variables" / "v").write_text("new")
    else:
        if kind == "pair":
            written.with_suffix(".bin").write_text("new")
        with open(written, "w") as file:
            file.write("n")
            file.flush()
            deadly(lambda: None)()
            file.write("ew")
"""


def _old(target: pathlib.Path, kind: str) -> None:
    if kind == "folder":
        (target / "variables").mkdir(parents=True)
        (target / "saved_model.pb").write_text("old")
        (target / "variables" / "v").write_text("old")
    else:
        target.write_text("old")
        if kind == "pair":
            target.with_suffix(".bin").write_text("old")


def _state(target: pathlib.Path, kind: str) -> str:
    if not target.exists():
        return "none"
    if kind == "file":
        return target.read_text()
    files = [target / "saved_model.pb", target / "variables" / "v"]
    if kind == "pair":
        files = [target, target.with_suffix(".bin")]
    texts = {path.read_text() for path in files}
    return texts.pop() if len(texts) == 1 else "mixed"


@pytest.mark.parametrize("kind", ["file", "folder", "pair"])
@pytest.mark.parametrize("existing", [True, False], ids=["over_an_old_one", "fresh"])
def test_killed_at_every_step(tmp_path, kind, existing):
    states = []
    for fatal in range(1, 100):
        target = tmp_path / str(fatal) / "model"
        target.parent.mkdir()
        if existing:
            _old(target, kind)
        command = [sys.executable, "-S", "-c", CHILD, ATOMIC, target, kind, str(fatal)]
        code = subprocess.run(command, check=False).returncode
        states.append(_state(target, kind))
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert states[-1] == "new"
    left = {"model", "model.bin"} if kind == "pair" else {"model"}
    assert {p.name for p in target.parent.iterdir()} == left
    assert len(states) > 3, "the process was not killed often enough to show anything"
    # Over an old one, only what takes more than one rename has a moment with none.
    if existing:
        assert set(states) <= ({"old", "new"} if kind == "file" else {"old", "none", "new"})
        assert states.count("none") <= {"file": 0, "folder": 1, "pair": 3}[kind]
    else:
        assert set(states) <= {"none", "new"}


@pytest.mark.stress
@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["m.tflite", "m.onnx", "m.keras"])
def test_export_killed_before_the_last_step(tmp_path, name):
    target = tmp_path / name
    target.write_text("old")
    child = (
        "import keras, os, signal\n"
        "from keras_sbp import export\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])\n"
        f"export(model, {str(target)!r}, overwrite=True)\n"
    )
    code = subprocess.run(
        [sys.executable, "-c", child], check=False, capture_output=True
    ).returncode
    assert code == -signal.SIGKILL
    assert target.read_text() == "old"
