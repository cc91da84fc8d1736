"""Prunes every network of keras.applications, and a few more: `python -m benchmarks.applications`.

Each network gets gates (`keras_sbp.insert_sbp`), random weights and posteriors such that 40 % of
each gate's units fall below its rule, and is pruned. The small network is compared with the gated
one on random inputs, saved and loaded; some are exported to LiteRT. Every network is a process of
its own, so peak memory is its own too. The results go into a JSON file one by one: after an
interruption, `--resume` goes on. `--table` writes them into docs/architectures.md.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.architectures.catalogue import catalogue
from benchmarks.architectures.measure import BATCH_SIZE, TOLERANCE, shortcomings
from benchmarks.architectures.page import write_page
from benchmarks.architectures.random_state import DROP
from benchmarks.architectures.results import Results

JSON = pathlib.Path(__file__).parent / "results" / "applications.json"
TIMEOUT = 3600


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures; returns 1 if a network did not get what it was promised."""
    options = _parser().parse_args(arguments)
    console = Console()
    if options.table:
        console.print(f"Wrote {write_page(options.json)}.")
        return 0
    names = list(catalogue())
    unknown = sorted(set(options.models or ()) - set(names))
    if unknown:
        console.print(f"Unknown: {', '.join(unknown)}. Expected some of: {', '.join(names)}.")
        return 2
    settings = {
        "seed": options.seed,
        "dtype": options.dtype,
        "batch_size": BATCH_SIZE,
        "drop": DROP,
    }
    results = Results(options.json, settings)
    chosen = [name for name in names if not options.models or name in options.models]
    if options.resume:
        chosen = [name for name in chosen if not results.is_done(name)]
    failed = _measure_all(chosen, names, results, settings, console)
    console.print(f"{len(chosen) - failed} of {len(chosen)} as promised; see {options.json}.")
    return int(failed > 0)


def _measure_all(
    chosen: list[str], names: list[str], results: Results, settings: dict, console: Console
) -> int:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    failed = 0
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("", total=len(chosen))
        for name in chosen:
            progress.update(task, description=name)
            row = _measure_apart(name, settings)
            results.add(name, row, names)
            wrong = [row["error"]] if "error" in row else shortcomings(row)
            failed += bool(wrong)
            progress.console.print(_line(name, row, wrong))
            progress.advance(task)
    return failed


def _measure_apart(name: str, settings: dict) -> dict:
    command = [sys.executable, "-m", "benchmarks.architectures.measure", name]
    command += ["--seed", str(settings["seed"]), "--dtype", settings["dtype"]]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return {"name": name, "error": f"not done after {TIMEOUT} s"}
    if done.returncode < 0:
        return {"name": name, "error": f"killed by signal {-done.returncode}; memory is short?"}
    if done.returncode:
        return {"name": name, "error": done.stderr.strip()[-2000:]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def _line(name: str, row: dict, wrong: list[str]) -> str:
    if wrong:
        return f"[red]{name}[/]: {'; '.join(wrong)}".replace("\n", "\n    ")
    share = row["macs_after"] / row["macs_before"]
    return (
        f"{name}: {share:.0%} of the MACs, pruned in {row['prune_seconds']['clock']} s, "
        f"max|Δ| {row['max_abs_error']:.1e}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--json", type=pathlib.Path, default=JSON, help="the file of results")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--dtype", choices=TOLERANCE, default="float32", help="of all layers")
    parser.add_argument("--resume", action="store_true", help="leave out what was measured")
    parser.add_argument("--table", action="store_true", help="write docs/architectures.md instead")
    return parser


if __name__ == "__main__":
    sys.exit(main())
