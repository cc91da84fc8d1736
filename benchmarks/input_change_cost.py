"""What choosing units by input change costs: `python -m benchmarks.input_change_cost`.

A 3 × 3 convolution reads 512 units of 512 examples (4,608 features, 32 positions of each) and
makes 512 others. Measured are the second moments, the choice of half of the units, and the new
weights for the chosen ones, by the clock and in processor time over all threads.
"""

from __future__ import annotations

import pathlib
import sys
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.architectures.results import machine, versions, write_json
from keras_sbp.rules.least_squares import Moments, refit, select

JSON = pathlib.Path(__file__).parent / "results" / "input_change_cost.json"
EXAMPLES, POSITIONS, UNITS, TAPS, TARGETS = 512, 32, 512, 9, 512


def main() -> int:
    """Measures, prints and writes the file."""
    rng = np.random.default_rng(0)
    features = UNITS * TAPS
    x = np.maximum(rng.standard_normal((EXAMPLES * POSITIONS, features), np.float32), 0)
    y = x @ rng.normal(0, features**-0.5, (features, TARGETS)).astype("float32")
    moments = Moments.empty(np.tile(np.arange(UNITS), TAPS), TARGETS)
    steps: list[tuple[str, Callable]] = [
        ("second moments", lambda: moments.add(x, y)),
        ("choosing 256 of 512 units", lambda: select([moments], UNITS, UNITS // 2)),
        ("new weights", lambda: refit(moments, moments.unit_of < UNITS // 2)),
    ]
    table, rows = Table("step", "seconds", "processor seconds"), []
    for name, step in steps:
        clock, processor = time.perf_counter(), time.process_time()
        step()
        row = {
            "step": name,
            "seconds": round(time.perf_counter() - clock, 2),
            "processor_seconds": round(time.process_time() - processor, 2),
        }
        rows.append(row)
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
    write_json(JSON, {"versions": versions(), "machine": machine(), "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
