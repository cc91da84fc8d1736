"""What gates, posteriors and decisions say to do, done."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from keras_sbp.distributions import TruncatedLogNormal
from keras_sbp.layers import SBPLayer, deciding
from tests.remedies.case import case, check_remedy


def built(shape: tuple = (None, 4), **arguments: Any) -> SBPLayer:
    gate = SBPLayer(**arguments)
    gate.build(shape)
    return gate


def decide(keep: list) -> None:
    with deciding({built(): keep}):
        pass


def call_before_and_after_building(build: bool) -> None:
    gate = SBPLayer()
    if build:
        gate(np.ones((2, 4), "float32"))
    gate.snr()


def save(units: int) -> dict[str, np.ndarray]:
    store: dict[str, np.ndarray] = {}
    built((None, units)).save_own_variables(store)
    return store


def check_broken(mend: bool) -> None:
    gate = built()
    checkpoint = save(4)
    gate.set_weights([np.full(4, np.nan), *gate.get_weights()[1:]])
    if mend:
        gate.load_own_variables(checkpoint)
    gate.check_posterior()


@pytest.mark.parametrize(
    ("words", "wrong", "right"),
    [
        case(
            "Pass one True or False per unit", lambda: decide([1.0] * 4), lambda: decide([True] * 4)
        ),
        case(
            "Pass a finite number or an initializer",
            lambda: SBPLayer(mu_initializer=np.nan),
            lambda: [SBPLayer(mu_initializer=0.5), SBPLayer(mu_initializer="zeros")],
        ),
        case(
            "Call the model on a batch",
            lambda: call_before_and_after_building(False),
            lambda: call_before_and_after_building(True),
        ),
        case(
            "Give the axis along which the units lie, or axis=None",
            lambda: built(axis=4),
            lambda: [built(axis=1), built(axis=None)],
        ),
        case(
            "Give that axis, or axis=None",
            lambda: built(axis=0),
            lambda: [built(axis=1), built(axis=None)],
        ),
        case(
            "Fix that size in the model's Input, or gate another axis",
            lambda: built((None, None, 4), axis=1),
            lambda: [built((None, 3, 4), axis=1), built((None, None, 4), axis=2)],
        ),
        case(
            "Pass, for instance, axis=-1 for channels_last and axis=1 for channels_first",
            lambda: SBPLayer(axis=1.5),
            lambda: [SBPLayer(axis=-1), SBPLayer(axis=1)],
        ),
        case(
            "Load the file into the architecture that wrote it",
            lambda: built().load_own_variables(save(3)),
            lambda: built((None, 3)).load_own_variables(save(3)),
        ),
        case(
            "load an earlier checkpoint",
            lambda: check_broken(mend=False),
            lambda: check_broken(mend=True),
        ),
        case(
            "Pass a smaller log_low or a larger log_high",
            lambda: TruncatedLogNormal(0.0, 0.0, -1.0, -1.0),
            lambda: TruncatedLogNormal(0.0, 0.0, -2.0, 0.0),
        ),
    ],
)
def test_remedy(words: str, wrong: Any, right: Any) -> None:
    check_remedy(words, wrong, right)
