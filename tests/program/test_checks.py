"""Answers of handlers that have the wrong form are errors that name layer and handler."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest

from keras_sbp.handlers import UnitWise, register_handler
from keras_sbp.program import registry
from keras_sbp.pruning import prune
from tests.pruning.oracle import drop_units, gate

pytestmark = pytest.mark.usefixtures("own_registry")

BOOL = np.ones(6, bool)


class Odd(keras.layers.Layer):
    def call(self, x):
        return x * x


class Correct(UnitWise):
    def function(self, op):
        return op.operation.call

    def is_homogeneous(self, op):
        return False


def prune_with(**answers) -> keras.Model:
    """Prunes a net in which a handler's methods answer what these functions make of the truth."""

    class Faulty(Correct):
        def values(self, op, inputs):
            return answers.get("values", lambda x: x)(super().values(op, inputs))

        def needs(self, op, needed, inputs):
            return answers.get("needs", lambda x: x)(super().needs(op, needed, inputs))

        def rebuild(self, op, inputs, needed, build):
            return answers.get("rebuild", lambda x: x)(super().rebuild(op, inputs, needed, build))

    register_handler(Odd)(Faulty)
    the_gate = gate()
    model = keras.Sequential(
        [
            keras.Input((4, 6)),
            keras.layers.Dense(6),
            the_gate,
            Odd(name="odd"),
            keras.layers.Dense(3),
        ]
    )
    drop_units(the_gate, [1, 2])
    return prune(model)[0]


def test_correct_handler_passes() -> None:
    assert prune_with().get_layer("odd").output.shape == (None, 4, 4)


@pytest.mark.parametrize(
    ("answer", "expected", "received"),
    [
        (None, "a list with one entry per output, that is 1", "NoneType"),
        ({}, "a list with one entry per output, that is 1", "dict"),
        ([], "a list with one entry per output, that is 1", "list of 0"),
        ([{}, {}], "a list with one entry per output, that is 1", "list of 2"),
        ([None], "a dict from axis to array of output 0", "NoneType"),
        ([{-1: np.zeros(6)}], r"any of \[1, 2\] for shape \(None, 4, 6\)", "axis -1"),
        ([{0: np.zeros(1)}], r"any of \[1, 2\]", "axis 0"),
        ([{3: np.zeros(6)}], r"any of \[1, 2\]", "axis 3"),
        ([{"2": np.zeros(6)}], r"any of \[1, 2\]", "axis '2'"),
        ([{2: np.zeros(5)}], r"float64 of shape \(6,\) for axis 2", r"float64 of shape \(5,\)"),
        ([{2: np.zeros((1, 6))}], r"float64 of shape \(6,\)", r"float64 of shape \(1, 6\)"),
        ([{2: np.zeros(6, "float32")}], "float64", "float32"),
        ([{2: [0.0] * 6}], "a NumPy array of float64", "list"),
    ],
)
def test_values(answer, expected: str, received: str) -> None:
    pattern = rf"values\(\) of handler Faulty for 'odd' \(Odd\) .*{expected}.*Received: {received}"
    with pytest.raises(ValueError, match=pattern):
        prune_with(values=lambda truth: answer)


@pytest.mark.parametrize(
    ("answer", "expected", "received"),
    [
        (None, "a list with one entry per input, that is 1", "NoneType"),
        ([{}, {}], "a list with one entry per input, that is 1", "list of 2"),
        ([BOOL], "a dict from axis to array of input 0", "ndarray"),
        ([{-1: BOOL}], r"any of \[1, 2\]", "axis -1"),
        ([{2: BOOL[:5]}], r"bool of shape \(6,\) for axis 2 of input 0", r"shape \(5,\)"),
        ([{2: BOOL.astype(float)}], "bool", "float64"),
        ([{2: np.arange(6)}], "bool", "int64"),
        ([{2: ~BOOL}], "at least one unit along axis 2 of input 0, or None", "without any True"),
    ],
)
def test_needs(answer, expected: str, received: str) -> None:
    pattern = rf"needs\(\) of handler Faulty for 'odd' \(Odd\) .*{expected}.*Received: .*{received}"
    with pytest.raises(ValueError, match=pattern):
        prune_with(needs=lambda truth: answer)


def keep(*units: int) -> np.ndarray:
    return np.isin(np.arange(6), units)


@pytest.mark.parametrize(
    ("change", "expected", "received"),
    [
        (lambda slim: [], "a list with one entry per output", "list of 0"),
        (lambda slim: slim, "a list with one entry per output", "Slim"),
        (lambda slim: [slim.tensor], "a Slim for output 0", "KerasTensor"),
        (lambda slim: [replace(slim, source=None)], "stands for output 0", "another tensor"),
        (lambda slim: [replace(slim, tensor=slim.source)], "a Keras tensor", "Tensor"),
        (lambda slim: [replace(slim, carried={})], r"shape \(None, 4, 6\)", r"\(None, 4, 4\)"),
        (
            lambda slim: [replace(slim, carried={2: keep(0, 3, 4)})],
            r"that is shape \(None, 4, 3\)",
            r"\(None, 4, 4\)",
        ),
        (
            lambda slim: [replace(slim, carried={2: keep(0, 1, 3, 4)})],
            "carries every needed unit",
            "without 1 of 4 along axis 2, the first is unit 5",
        ),
        (
            lambda slim: [
                replace(
                    slim,
                    tensor=slim.tensor[:, :2],
                    carried=slim.carried | {1: np.array([True, True, False, False])},
                )
            ],
            "carries every needed unit",
            "without 2 of 4 along axis 1, the first is unit 2",
        ),
        (
            lambda slim: [replace(slim, tensor=keras.ops.cast(slim.tensor, "float16"))],
            "dtype float32",
            "dtype float16",
        ),
        (lambda slim: [replace(slim, scale={2: np.ones(4)})], r"shape \(6,\)", r"shape \(4,\)"),
        (lambda slim: [replace(slim, scale={-1: np.ones(6)})], r"any of \[1, 2\]", "axis -1"),
        (lambda slim: [replace(slim, rescale={3: print})], r"any of \[1, 2\]", "axis 3"),
    ],
)
def test_rebuild(change, expected: str, received: str) -> None:
    pattern = rf"rebuild\(\) of handler Faulty for 'odd' .*{expected}.*Received: .*{received}"
    with pytest.raises(ValueError, match=pattern):
        prune_with(rebuild=lambda truth: change(truth[0]))


@pytest.mark.parametrize("method", ["values", "needs", "rebuild"])
def test_error_inside_a_handler_says_where(method: str) -> None:
    def fail(truth):
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost") as caught:
        prune_with(**{method: fail})
    assert caught.value.__notes__ == [
        f"This happened in {method}() of handler Faulty for 'odd' (Odd)."
    ]


@pytest.mark.remedy("Mend the handler; keras_sbp.testing.LayerHandlerContract")
def test_handler_that_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="Mend the handler"):
        prune_with(values=lambda truth: None)
    monkeypatch.delitem(registry._registry, Odd)
    assert len(prune_with().get_layer("odd").output.shape) == 3
