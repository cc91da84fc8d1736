"""prune() returns the same function on random networks.

`pytest tests/pruning/test_random_graphs.py --graphs 500` prunes 500 of them, `--first-seed 77
--graphs 1` the one of seed 77.
"""

from __future__ import annotations

from collections import Counter

import keras
import pytest

from tests.pruning.oracle import (
    NothingToCompareError,
    assert_same_function,
    count_without_gates,
    randomise,
)
from tests.pruning.random_graphs import Author

PER_TEST = 25


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    first, graphs = (metafunc.config.getoption(o) for o in ("--first-seed", "--graphs"))
    starts = range(first, first + graphs, PER_TEST)
    batches = [range(s, min(s + PER_TEST, first + graphs)) for s in starts]
    metafunc.parametrize("seeds", batches, ids=[f"{b.start}-{b.stop - 1}" for b in batches])


def test_same_function(seeds: range) -> None:
    seen: Counter[str] = Counter()
    for seed in seeds:
        try:
            seen[outcome(seed)] += 1
        except Exception as error:
            raise AssertionError(f"random network of seed {seed}: {error}") from error
        finally:
            keras.backend.clear_session(free_memory=False)
    # The property means little if few networks got smaller.
    assert len(seeds) < PER_TEST or seen["smaller"] > 0.2 * PER_TEST, seen


def outcome(seed: int) -> str:
    """Prunes the seed's network and compares; returns what happened."""
    model = randomise(Author(seed).write(), seed, drop=0.4)
    try:
        small, _ = assert_same_function(model)
    except ValueError as error:
        assert "would not depend on the input" in str(error)
        return "constant output refused"
    except NothingToCompareError:
        return "output hardly varies"
    return "smaller" if small.count_params() < count_without_gates(model) else "same size"
