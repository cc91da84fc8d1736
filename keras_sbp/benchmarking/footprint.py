"""Peak memory of a model: measured in a process of its own."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pathlib
import re
import subprocess
import sys

import keras

from keras_sbp.benchmarking.timing import random_inputs
from keras_sbp.formats.base import FORMATS, Format
from keras_sbp.formats.packages import require

_CALLS = 3
_CHILD = "from keras_sbp.benchmarking.footprint import measure_here; measure_here()"


def peak_memory(
    path: pathlib.Path, form: Format, *, batch_size: int, num_threads: int
) -> int | None:
    """Memory that loading and running a model takes, at its peak.

    A new process imports the runtime, then loads the model and runs it three times on random
    inputs. Counted is the peak of its resident memory above what it had before loading.

    Args:
        path: The exported model.
        form: Its format.
        batch_size: Size of the batch.
        num_threads: Threads of the runtime.

    Returns:
        Bytes; `None` where the system does not tell (it does on Linux).
    """
    if not pathlib.Path("/proc/self/clear_refs").exists():
        return None
    root = str(pathlib.Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [root, *sys.path]))
    environment = os.environ | {"PYTHONPATH": paths, "KERAS_BACKEND": keras.backend.backend()}
    request = json.dumps([str(path), form.name, batch_size, num_threads, form.modules()])
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, request],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RuntimeError(f"Loading and running '{path}' in a process of its own failed: {last}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure_here() -> None:
    """What the new process runs: its argument is the request, its last line the answer."""
    path, name, batch_size, num_threads, modules = json.loads(sys.argv[1])
    for module in modules:
        # Where one is missed, loading the model says so.
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    if name not in FORMATS:
        raise RuntimeError(
            f"there is no format '{name}'. Register it in a module that can be imported, or pass "
            "memory=False."
        )
    form = FORMATS[name]
    if form.runtime:
        require(form.runtime, f"Running a file for {form.title}")
    # Imports may have needed more for a moment than they keep; forget that.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    model = form.load(pathlib.Path(path), num_threads)
    model.set_inputs(random_inputs(model.inputs, batch_size))
    for _ in range(_CALLS):
        model.invoke()
    sys.stdout.write(f"\n{json.dumps(max(0, _status('VmHWM') - before))}\n")


def _status(field: str) -> int:
    text = pathlib.Path("/proc/self/status").read_text()
    (kilobytes,) = re.findall(rf"{field}:\s+(\d+) kB", text)
    return 1024 * int(kilobytes)
