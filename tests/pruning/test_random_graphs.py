"""prune() returns the same function on random networks.

`make random-graphs GRAPHS=10000` prunes 10,000 of them, under Keras on NumPy, where small networks
run several times faster. Hypothesis makes all choices, and shrinks a network that fails to a small
one. A batch that fails comes back with `--first-seed N --graphs 25`, where N is the first number in
the test's name.
"""

from __future__ import annotations

import random
from collections import Counter

import hypothesis
import keras
import pytest
from hypothesis import strategies as st

from keras_sbp.program import trace
from tests.pruning.oracle import (
    NothingToCompareError,
    assert_same_function,
    count_without_gates,
    random_inputs,
    randomise,
)
from tests.pruning.random_graphs import Author
from tests.pruning.reason_claims import assert_reasons

PER_TEST = 25

# A network takes a second or so to build, which Hypothesis would take for a fault of ours.
SETTINGS = hypothesis.settings(
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    print_blob=True,
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "batch" not in metafunc.fixturenames:
        return
    first, graphs = (metafunc.config.getoption(o) for o in ("--first-seed", "--graphs"))
    starts = range(first, first + graphs, PER_TEST)
    batches = [range(s, min(s + PER_TEST, first + graphs)) for s in starts]
    metafunc.parametrize("batch", batches, ids=[f"{b.start}-{b.stop - 1}" for b in batches])


@pytest.mark.stress
def test_same_function(batch: range) -> None:
    prune_and_compare(batch)


def test_same_function_of_a_few() -> None:
    prune_and_compare(range(4))


def prune_and_compare(batch: range) -> None:
    seen: Counter[str] = Counter()

    @hypothesis.seed(batch.start)
    @hypothesis.settings(SETTINGS, max_examples=len(batch))
    @hypothesis.given(st.randoms(use_true_random=False), st.integers(0, 2**32 - 1))
    def prunes_to_the_same_function(choices: random.Random, weights: int) -> None:
        seen[outcome(choices, weights)] += 1

    prunes_to_the_same_function()
    # The property means little if few networks got smaller, or could be run.
    assert len(batch) < PER_TEST or seen["smaller"] > 0.2 * PER_TEST, seen
    assert seen["nothing for this backend"] <= 0.2 * PER_TEST, seen


def outcome(choices: random.Random, weights: int) -> str:
    """Prunes the network that the choices make, and compares; returns what happened."""
    keras.backend.clear_session(free_memory=False)
    model = randomise(Author(choices).write(), weights, drop=0.4)
    if keras.backend.backend() == "numpy" and not runs(model):
        return "nothing for this backend"
    try:
        small, report = assert_same_function(model)
        assert_reasons(model, report)
    except ValueError as error:
        if "would not depend on the input" not in str(error):
            raise
        return "constant output refused"
    except NothingToCompareError:
        return "output hardly varies"
    except Exception as error:
        raise AssertionError(f"{error}\nin the network\n{program_of(model)}") from error
    return "smaller" if small.count_params() < count_without_gates(model) else "same size"


def runs(model: keras.Model) -> bool:
    """Keras on NumPy lacks a few things: softmax over several axes, some attention masks."""
    try:
        model(random_inputs(model))
    except Exception:
        return False
    return True


def program_of(model: keras.Model) -> str:
    """What a failing network computes, a line for every call."""
    calls = trace(model).ops
    return "\n".join(f"{op.name}: {[t.shape for t in op.inputs]} {op.kwargs}" for op in calls)
