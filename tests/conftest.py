"""Options and fixtures for all tests."""

from __future__ import annotations

import importlib.util
import pathlib

import keras
import numpy as np
import pytest

from benchmarks.architectures import hub
from keras_sbp.program import registry
from tests import kernels
from tests.wheel import Installed, install

TFMOT = ("tf_keras", "tensorflow_model_optimization")
PEER = ("torch", "torch_pruning")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--graphs", type=int, default=50, help="number of random networks to prune")
    parser.addoption("--first-seed", type=int, default=0, help="seed of the first of them")
    parser.addoption("--trials", type=int, default=3, help="random trials per handler and test")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects tests of TensorFlow itself under other backends, and of packages not there."""
    here = {
        "tensorflow": keras.backend.backend() == "tensorflow",
        "keras_hub": hub.INSTALLED,
        "tfmot": all(map(importlib.util.find_spec, TFMOT)),
        "peer": all(map(importlib.util.find_spec, PEER)),
    }
    missing = [marker for marker, is_here in here.items() if not is_here]
    foreign = [item for item in items if any(map(item.get_closest_marker, missing))]
    config.hook.pytest_deselected(items=foreign)
    items[:] = [item for item in items if item not in foreign]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs tests of operations that this machine's backend cannot run under JAX instead."""
    if not kernels.lacks_a_kernel(pyfuncitem):
        return None
    kernels.passes_under_jax(pyfuncitem)
    return True


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The package's wheel, in an environment of its own."""
    return install(tmp_path_factory.mktemp("installed"))


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers that the test registers are forgotten after it."""
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))


@pytest.fixture
def optimizers_built_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the optimizer's variables before the first step runs, not in it.

    TensorFlow traces a step twice that makes variables, which is most of the time that a few
    steps of a small network take. Tests of what happens in a first step do without this.
    """
    make = keras.Model.make_train_function

    def make_train_function(model: keras.Model, force: bool = False) -> None:
        before = model.train_function
        make(model, force)
        step = model.train_function
        if step is before:
            return

        def built_first(data: object) -> object:
            if model.built and not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)
            return step(data)

        model.train_function = built_first

    if keras.backend.backend() == "tensorflow":
        monkeypatch.setattr(keras.Model, "make_train_function", make_train_function)


@pytest.fixture
def mnist_folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Two hundred noisy images whose brightest half tells the label: a file like MNIST's."""
    rng = np.random.default_rng(0)
    labels = np.arange(200, dtype="uint8") % 10
    images = rng.integers(0, 100, (200, 28, 28), dtype="uint8")
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 6] += 150
    np.savez(
        tmp_path / "mnist.npz",
        x_train=images[:160],
        y_train=labels[:160],
        x_test=images[160:],
        y_test=labels[160:],
    )
    return tmp_path


@pytest.fixture(autouse=True)
def _fresh_keras() -> None:
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float32")
    yield
    keras.config.set_dtype_policy("float32")
