"""Options and fixtures for all tests."""

from __future__ import annotations

import keras
import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--graphs", type=int, default=100, help="number of random networks to prune")
    parser.addoption("--first-seed", type=int, default=0, help="seed of the first of them")
    parser.addoption("--trials", type=int, default=4, help="random trials per handler and test")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under another backend, tests of TensorFlow itself are not collected."""
    if keras.backend.backend() == "tensorflow":
        return
    foreign = [item for item in items if item.get_closest_marker("tensorflow")]
    config.hook.pytest_deselected(items=foreign)
    items[:] = [item for item in items if item not in foreign]


@pytest.fixture(autouse=True)
def _fresh_keras() -> None:
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float32")
    yield
    keras.config.set_dtype_policy("float32")
