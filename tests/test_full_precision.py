"""The backend's settings for products: exact while networks are compared, then as they were."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any, ClassVar

import keras
import numpy as np
import pytest

import keras_sbp
from keras_sbp.comparing.full_precision import full_precision

BACKEND = keras.backend.backend()
EXACT = {"jax": ["highest"], "tensorflow": [False], "torch": ["ieee"] * 3}.get(BACKEND)
ROUNDED = {"jax": ["bfloat16"], "tensorflow": [True], "torch": ["tf32"] * 3}.get(BACKEND)

pytestmark = pytest.mark.skipif(EXACT is None, reason=f"{BACKEND} rounds no factors")


def settings() -> list[Any]:
    if BACKEND == "jax":
        import jax

        return [jax.config.jax_default_matmul_precision]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return [tf.config.experimental.tensor_float_32_execution_enabled()]
    return [place.fp32_precision for place in places_of_torch()]


def put(values: list[Any]) -> None:
    if BACKEND == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", values[0])
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(values[0])
    else:
        for place, value in zip(places_of_torch(), values, strict=True):
            place.fp32_precision = value


def places_of_torch() -> list[Any]:
    from torch.backends import cuda, cudnn

    return [cuda.matmul, cudnn.conv, cudnn.rnn]


@pytest.fixture(autouse=True)
def the_user_wants_rounded_factors() -> Iterator[None]:
    before = settings()
    put(ROUNDED)
    yield
    put(before)


@keras.saving.register_keras_serializable("tests.full_precision")
class Watch(keras.layers.Layer):
    """Passes its input on and notes what holds while it computes on numbers."""

    seen: ClassVar[list[Any]] = []

    def call(self, inputs: Any) -> Any:
        Watch.seen.append(settings())
        return inputs


def network() -> keras.Model:
    Watch.seen = []
    return keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, "relu"), Watch(), keras.layers.Dense(3)]
    )


def test_prune() -> None:
    model = network()
    model(np.zeros((1, 6), "float32"))
    assert all(each == ROUNDED for each in Watch.seen)  # outside, the user's settings hold
    Watch.seen.clear()
    keras_sbp.prune(model, keras_sbp.L1Norm(keep=0.5))
    assert Watch.seen
    assert all(each == EXACT for each in Watch.seen)
    assert settings() == ROUNDED


def test_insert_and_report() -> None:
    model = network()
    Watch.seen.clear()
    keras_sbp.gates_report(keras_sbp.insert_sbp(model, verbose=0))
    assert Watch.seen
    assert all(each == EXACT for each in Watch.seen)
    assert settings() == ROUNDED


def test_an_error_leaves_it_as_it_was() -> None:
    with pytest.raises(ZeroDivisionError), full_precision():
        assert settings() == EXACT
        1 / 0  # noqa: B018
    assert settings() == ROUNDED


def test_export(tmp_path: pathlib.Path) -> None:
    model = network()
    Watch.seen.clear()
    keras_sbp.export(model, tmp_path / "model.keras")
    assert Watch.seen
    assert all(each == EXACT for each in Watch.seen)
    assert settings() == ROUNDED
