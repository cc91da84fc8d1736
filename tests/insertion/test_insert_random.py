"""insert_sbp on random networks: the same function, and what it inserts can be pruned.

`pytest tests/insertion/test_insert_random.py --graphs 2000` takes as many networks.
"""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np
import pytest

import keras_sbp
from keras_sbp.layers import find_gates
from tests.pruning.oracle import (
    NothingToCompareError,
    assert_same_function,
    random_inputs,
    randomise,
)
from tests.pruning.random_graphs import Author

PER_TEST = 10


class FewGates(Author):
    """Puts in few gates of its own."""

    def gate(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return super().gate(x) if self.chance(10) else x


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    first, graphs = (metafunc.config.getoption(o) for o in ("--first-seed", "--graphs"))
    starts = range(first, first + max(graphs // 4, 1), PER_TEST)
    metafunc.parametrize("first", starts)


def options(choices: random.Random) -> dict[str, Any]:
    chosen = {
        "tie_residual": choices.random() < 0.5,
        "gate": choices.choice(["units", "units", "units", "branch"]),
        "placement": choices.choice(["activation", "activation", "layer"]),
        "kl_weight": choices.choice([1.0, "macs"]),
        "attention": choices.choice(["heads", "heads+width"]),
    }
    if chosen["gate"] == "branch":  # the others say where gates for units go
        return {name: chosen[name] for name in ("gate", "kl_weight")}
    return chosen


def test_random_networks(first: int) -> None:
    gated = 0
    for seed in range(first, first + PER_TEST):
        keras.backend.clear_session(free_memory=False)
        choices = random.Random(seed)
        model = randomise(FewGates(choices).write(), seed, drop=0.0)
        chosen = options(choices)
        try:
            gated += is_sound(model, seed, **chosen)
        except Exception as error:
            raise AssertionError(f"seed {seed}, {chosen}: {error}") from error
    assert gated > 1


def is_sound(model: keras.Model, seed: int, **chosen: Any) -> bool:
    """Compares the gated network with the given one, and with the pruned one."""
    try:
        gated = keras_sbp.insert_sbp(model, log_sigma_initializer=-20.0, num_samples=9, **chosen)
    except ValueError as error:
        if "has nothing to gate" not in str(error):
            raise
        return False
    assert len(find_gates(gated)) > len(find_gates(model))
    inputs = random_inputs(model)
    before, after = (keras.tree.flatten(each(inputs, training=False)) for each in (model, gated))
    for x, y in zip(before, after, strict=True):
        x, y = keras.ops.convert_to_numpy(x), keras.ops.convert_to_numpy(y)
        assert np.abs(x - y).max() <= 1e-5 * max(np.abs(x).max(), 1e-3)
    try:
        assert_same_function(randomise(gated, seed, drop=0.4))
    except NothingToCompareError:
        pass
    except ValueError as error:
        if "would not depend on the input" not in str(error):
            raise
    return True
