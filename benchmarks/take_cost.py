"""What a `take` costs in LiteRT, in multiply-accumulates: `python -m benchmarks.take_cost`.

Compares Dense(outputs) on all features with a take of some of them before it. The builder's rule
(`TAKE_COST` in keras_sbp/program/builder.py) rests on the last column.
"""

from __future__ import annotations

import pathlib
import tempfile

import keras
import numpy as np

from keras_sbp import export
from keras_sbp.benchmarking.latency import compare_latency

CASES = [(800, 400, 500), (784, 245, 160), (2000, 1000, 10), (2000, 1800, 20), (4096, 3800, 40)]


def measure(features: int, kept: int, outputs: int) -> tuple[float, float]:
    """Returns the speed-up by the take, and the cost of copying one number in MACs."""
    x = keras.Input((features,))
    chosen = np.sort(np.random.default_rng(0).permutation(features)[:kept]).astype("int32")
    whole = keras.Model(x, keras.layers.Dense(outputs)(x))
    part = keras.Model(x, keras.layers.Dense(outputs)(keras.ops.take(x, chosen, axis=-1)))
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder, name) for name in ("whole.tflite", "part.tflite")]
        for model, path in zip((whole, part), paths, strict=True):
            export(model, path)
        latency = compare_latency(*paths)
    per_mac = latency.first_us / (features * outputs)
    copying = latency.second_us - per_mac * kept * outputs
    return latency.ratio, copying / kept / per_mac


if __name__ == "__main__":
    print("features  kept  outputs  faster by  MACs per copied number")
    for case in CASES:
        ratio, cost = measure(*case)
        print("{:8d} {:5d} {:8d}".format(*case), f"{ratio:9.2f}x {cost:10.0f}")
