"""Operations that not every build of a backend can run, on not every processor.

TensorFlow on a CPU has some kernels only where oneDNN is on, and oneDNN is on or off by what it
finds of the processor. `TF_ENABLE_ONEDNN_OPTS=0` or `1` shows the other kind of machine.
"""

from __future__ import annotations

import functools
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from keras import ops

ROOT = pathlib.Path(__file__).parents[1]
IMAGE, KERNEL = np.ones((1, 4, 4, 4), "float32"), np.ones((3, 3, 4, 4), "float32")


LACKING = ("InvalidArgumentError", "UnimplementedError", "NotImplementedError")


def _strided_beyond_the_kernel() -> None:
    """Without oneDNN, TensorFlow takes positions 1 and 4 of 6, elsewhere 0 and 3."""
    volume = np.arange(6.0, dtype="float32").reshape(1, 6, 1, 1, 1)
    out = ops.conv(volume, np.ones((1, 1, 1, 1, 1), "float32"), strides=3, padding="same")
    if not np.array_equal(ops.convert_to_numpy(out).ravel(), [0, 3]):
        raise NotImplementedError


KERNELS = {
    "channels_first": lambda: ops.conv(IMAGE, KERNEL, data_format="channels_first"),
    "channels_first_transposed": lambda: ops.conv_transpose(
        IMAGE, KERNEL, strides=2, data_format="channels_first"
    ),
    "dilated_transposed": lambda: ops.conv_transpose(
        IMAGE, KERNEL, strides=1, dilation_rate=2, data_format="channels_last"
    ),
    "strided_beyond_the_kernel": _strided_beyond_the_kernel,
}


@functools.cache
def is_here(kernel: str) -> bool:
    """Whether this backend runs the operation on this machine: it is tried, once."""
    try:
        KERNELS[kernel]()
    except Exception as error:
        if type(error).__name__ not in LACKING:
            raise
        return False
    return True


def passes_under_jax(item: pytest.Item) -> None:
    """Fails where a test does not pass in a process of its own, Keras on JAX, with all kernels.

    All tests of the session that lack a kernel run in one such process: its start takes longest.
    """
    done = _run_under_jax(tuple(filter(lacks_a_kernel, item.session.items)))
    if f"PASSED {item.nodeid}" not in done.splitlines():
        pytest.fail(f"Under JAX, as TensorFlow has no kernel here:\n{done}", pytrace=False)


def lacks_a_kernel(item: pytest.Item) -> bool:
    """Whether a test is marked with an operation that this backend does not run here."""
    marker = item.get_closest_marker("kernel")
    return marker is not None and not all(map(is_here, marker.args))


@functools.cache
def _run_under_jax(items: tuple[pytest.Item, ...]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA"]
        + [item.nodeid for item in items],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr
