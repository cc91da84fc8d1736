"""How far two computations of one function may lie apart, of the largest number in the output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

# The same operations in the same order: all but equal.
SAME_CALLS = {"float64": 1e-6, "float32": 1e-6, "float16": 1e-2, "bfloat16": 5e-2}

# The same function with other sums, by one backend: what rounding explains.
ROUNDING = {"float64": 1e-9, "float32": 1e-5, "float16": 2e-2, "bfloat16": 1.5e-1}
DEEP = 100  # above this many layers, rounding adds up: ten times as much

# One layer in a small random network, where sums may cancel.
ONE_LAYER = ROUNDING | {"float32": 1e-4}

# The same operations in another runtime, which computes in float32 at best. The narrow types carry
# 11 and 8 bits: a few roundings apart is all one can ask of two runtimes.
ANOTHER_RUNTIME = {"float64": 1e-4, "float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}


def tolerance(table: Mapping[str, float], dtypes: Iterable[str]) -> float:
    """Returns what a table allows a network that computes in these dtypes."""
    return max((table.get(dtype, table["float32"]) for dtype in dtypes), default=table["float32"])


def distance(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the largest |difference| of two arrays; of words, infinity where any differs."""
    if x.shape != y.shape:
        return np.inf
    if x.dtype.kind in "OSU":
        return 0.0 if np.array_equal(x, y) else np.inf
    return float(np.abs(x - y).max(initial=0.0))


def largest(x: np.ndarray) -> float:
    """Returns the largest |number| of an array; of words, 1."""
    return 1.0 if x.dtype.kind in "OSU" else float(np.abs(x).max(initial=0.0))


def variation(examples: np.ndarray) -> float:
    """Returns how much a result changes along axis 0, of its largest |number|; 1 for words."""
    if examples.dtype.kind in "OSU":
        return float((examples != examples[:1]).any())
    spread = float((examples.max(axis=0) - examples.min(axis=0)).max(initial=0.0))
    return spread / largest(examples) if spread else 0.0
