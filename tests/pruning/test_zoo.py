"""prune() returns the same function on every topology of the zoo, in both precisions."""

from __future__ import annotations

import contextlib

import keras
import pytest

from keras_sbp.layers import find_gates
from tests.pruning.oracle import (
    NothingToCompareError,
    assert_same_function,
    count_without_gates,
    drop_units,
    randomise,
)
from tests.pruning.reason_claims import assert_reasons
from tests.pruning.zoo import ZOO

# JAX computes in double precision only behind a process-wide switch.
PRECISIONS = ["float32", "float64"] if keras.backend.backend() == "tensorflow" else ["float32"]

# The removed unit is a constant other than 0 at a padded border, or is an output.
STAYS_WHOLE = {"constant_through_zero_padding", "output_that_is_gated"}

# TensorFlow has no three-dimensional pooling in double precision on a CPU, and resizes images in
# single precision.
SINGLE_ONLY = {"three_dimensions", "resized_images"}

CASES = [
    # Where both precisions are to be had, rounding hides nothing in the double one.
    pytest.param(name, p, marks=pytest.mark.stress if p != precisions[-1] else ())
    for name in ZOO
    for precisions in [PRECISIONS[:1] if name in SINGLE_ONLY else PRECISIONS]
    for p in precisions
]


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_same_function(name: str, precision: str) -> None:
    keras.config.set_dtype_policy(precision)
    model = randomise(ZOO[name](), drop=0.0)
    for number, gate in enumerate(find_gates(model)):
        every_second = list(range(1, gate.units, 2))
        drop_units(gate, every_second if gate.units > 1 else [0] * (number % 2))
    small, report = assert_same_function(model)
    assert_reasons(model, report)
    assert report.params_after == small.count_params()
    assert report.params_before == count_without_gates(model)
    if name not in STAYS_WHOLE:
        assert report.macs_after < report.macs_before


@pytest.mark.stress
@pytest.mark.parametrize("name", ZOO)
def test_nothing_to_prune_keeps_every_unit(name: str) -> None:
    model = randomise(ZOO[name](), drop=0.0)
    _, report = assert_same_function(model)
    # A ReLU unit that no weight reaches may go; here weights are dense, so none does.
    assert [row.units_after for row in report.layers] == [row.units_before for row in report.layers]


@pytest.mark.stress
@pytest.mark.parametrize("name", ZOO)
def test_one_unit_left(name: str) -> None:
    model = randomise(ZOO[name](), drop=0.0)
    for gate in find_gates(model):
        drop_units(gate, list(range(1, gate.units)))
    with contextlib.suppress(NothingToCompareError):  # a single ReLU unit may be off on all inputs
        assert_same_function(model)
