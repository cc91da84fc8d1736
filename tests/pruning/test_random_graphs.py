"""prune() returns the same function on random networks.

`pytest tests/pruning/test_random_graphs.py --graphs 500` runs as many as you like.
"""

from __future__ import annotations

from collections import Counter

import keras
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.pruning.oracle import (
    NothingToCompareError,
    assert_same_function,
    count_without_gates,
    randomise,
)
from tests.pruning.random_graphs import gated_networks


def test_random_graphs(request: pytest.FixtureRequest) -> None:
    seen: Counter[str] = Counter()

    @settings(
        max_examples=request.config.getoption("--graphs"),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=not request.config.getoption("--explore"),
        database=None,
    )
    @given(
        model=gated_networks(),
        seed=st.integers(0, 2**16),
        drop=st.sampled_from([0.3, 0.5]),
    )
    def check(model: keras.Model, seed: int, drop: float) -> None:
        try:
            seen[outcome(randomise(model, seed, drop))] += 1
        finally:
            keras.backend.clear_session(free_memory=False)

    check()
    # The property means little if few networks got smaller.
    assert seen["smaller"] > 0.5 * seen.total(), seen


def outcome(model: keras.Model) -> str:
    """Prunes and compares; returns what happened."""
    try:
        small, _ = assert_same_function(model)
    except ValueError as error:
        assert "would not depend on the input" in str(error)
        return "constant output refused"
    except NothingToCompareError:
        return "output hardly varies"
    return "smaller" if small.count_params() < count_without_gates(model) else "same size"
