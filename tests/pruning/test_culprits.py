"""Whatever keeps a unit that a rule dropped, the report names it: operations, too."""

from __future__ import annotations

import re
from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import Input, Model, layers, ops

from keras_sbp.layers import find_gates
from keras_sbp.pruning import PruneReport, prune
from keras_sbp.rules import L2Norm
from tests.pruning.oracle import drop_units, gate, randomise
from tests.pruning.reason_claims import assert_reasons

Tensor = keras.KerasTensor


class Sorted(layers.Layer):
    """Has no weights, and is unfolded into an operation that is opaque."""

    def call(self, x):
        return ops.sort(x, axis=-1)


class Product(layers.Layer):
    """Has weights of its own, so that it is opaque as a whole."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")

    def call(self, x):
        return ops.matmul(x, self.kernel)


def depth_to_space(x: Tensor) -> Tensor:
    x = ops.reshape(x, (-1, 6, 2, 4))
    return ops.reshape(ops.transpose(x, (2, 0, 1, 3)), (-1, 12, 4))


def fused_attention(x: Tensor) -> Tensor:
    query = ops.transpose(ops.reshape(x, (-1, 6, 2, 2, 2)), (2, 0, 3, 1, 4))
    return ops.matmul(query[0], ops.transpose(query[1], (0, 1, 3, 2)))


def shared(x: Tensor) -> Tensor:
    dense = layers.Dense(5, name="dense")
    return dense(x) + dense(ops.sigmoid(x))


# What reads the units behind the gate → what is named. The units are 0, 1 and 5 of 8.
READERS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "fused attention": (fused_attention, "opaque operation Transpose: it moves or changes the"),
    "pixel shuffle": (depth_to_space, "opaque operation Transpose: it moves or changes the"),
    "roll": (lambda x: ops.roll(x, 1, axis=-1), "the operation Roll: it needs all of its units"),
    "sort": (lambda x: ops.sort(x, axis=-1), "opaque operation Sort: no handler for the operation"),
    "cumsum": (lambda x: ops.cumsum(x, axis=-1), "opaque operation Cumsum: no handler for"),
    "top_k": (lambda x: ops.top_k(x, 3)[0], "opaque operation TopK: no handler for"),
    "logsumexp": (lambda x: ops.logsumexp(x, axis=-1), "opaque operation Logsumexp: no handler"),
    "implicit einsum": (
        lambda x: ops.einsum("btc,cd", x, np.ones((8, 3), "float32")),
        "opaque operation Einsum: its equation is not understood",
    ),
    "layer of an operation": (Sorted(), "opaque operation Sort: no handler for the operation Sort"),
    "lambda": (
        layers.Lambda(lambda x: ops.cumsum(x, axis=-1)),
        "opaque operation Cumsum: no handler for the operation Cumsum",
    ),
    "layer with weights": (Product(name="product"), "'product' (opaque Product)"),
    "masking": (
        lambda x: ops.mean(layers.Masking()(x), axis=1),
        "NotEqual: constants do not pass it",
    ),
    "groups of a reshape": (
        lambda x: ops.reshape(ops.concatenate([x, x], -1), (-1, 6, 4, 4)),
        "the operation Reshape: only whole groups of its units can go",
    ),
    "groups": (lambda x: layers.Conv1D(4, 1, groups=2, name="conv")(x), "only whole groups"),
    "mean": (lambda x: ops.mean(x, axis=-1), "the operation Mean: it needs all of its units"),
    "softmax": (lambda x: ops.softmax(x), "the operation Softmax: it needs all of its units"),
    "LayerNormalization": (
        layers.LayerNormalization(),
        "LayerNormalization: it needs all of its units",
    ),
    "rounding": (lambda x: ops.round(ops.sigmoid(x)), "Round: constants do not pass it"),
    "comparison": (lambda x: ops.cast(x > 0.1, "float32"), "Greater: constants do not pass it"),
    "no bias for them": (
        lambda x: layers.Conv1DTranspose(4, 3)(ops.sigmoid(x)),
        "Conv1DTranspose: the units are constants other than 0",
    ),
    "shared": (shared, "Dense: another call of it needs them"),
    "partner": (lambda x: x + layers.Dense(8)(x), "the operation Add: its other inputs vary"),
}


def first_layer(steps: Tensor) -> Tensor:
    x = layers.Conv1D(8, 1, use_bias=False, name="first")(steps)
    return layers.ReLU()(layers.BatchNormalization(name="batch_norm")(x))


def network(middle: Callable[[Tensor], Tensor]) -> Model:
    steps = Input((6, 4))
    x = middle(first_layer(steps))
    x = layers.Flatten()(x) if len(x.shape) > 2 else x
    return Model(steps, layers.Dense(3, name="last")(x))


def pruned(model: Model, units: list[int], **options) -> PruneReport:
    randomise(model, drop=0.0)
    for each in find_gates(model):
        drop_units(each, units)
    return prune(model, **options)[1]


def reason(report: PruneReport, name: str) -> str:
    return next(row.reason for row in report.layers if row.name == name)


@pytest.mark.parametrize("name", READERS)
def test_what_reads_the_units_behind_the_gate(name: str) -> None:
    reader, expected = READERS[name]
    model = network(lambda x: reader(gate(name="gate")(x)))
    report = pruned(model, [0, 1, 5])
    assert assert_reasons(model, report) == 1
    assert re.match(r"\d removed units? kept for '", reason(report, "first"))
    assert expected in reason(report, "first")
    assert reason(report, "batch_norm") == reason(report, "first") == report.gates[0].reason


MAKERS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "sort": (lambda x: ops.sort(x, axis=-1), "opaque operation Sort: no handler for"),
    "cumsum": (lambda x: ops.cumsum(x, axis=-1), "opaque operation Cumsum: no handler for"),
    "softmax": (layers.Softmax(), "Softmax: the units that stay depend on them"),
    "LayerNormalization": (layers.LayerNormalization(), "the units that stay depend on them"),
    "GroupNormalization": (layers.GroupNormalization(2), "only whole groups of its units can go"),
    "fused attention": (
        lambda x: ops.reshape(ops.transpose(fused_attention(x), (0, 2, 1, 3)), (-1, 6, 12)),
        "opaque operation GetItem: it moves or changes the batch axis",
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_what_makes_the_units_in_front_of_the_gate(name: str) -> None:
    maker, expected = MAKERS[name]
    report = pruned(network(lambda x: gate(name="gate")(maker(x))), [0, 1, 5])
    assert report.gates[0].reason.startswith("3 removed units kept for '")
    assert expected in report.gates[0].reason
    assert reason(report, "first") == report.gates[0].reason


RECURRENT = {
    "LSTM": lambda: layers.LSTM(6, name="units"),
    "GRU": lambda: layers.GRU(6, name="units"),
    "SimpleRNN": lambda: layers.SimpleRNN(6, return_sequences=True, name="units"),
    "RNN": lambda: layers.RNN(layers.GRUCell(6), name="units"),
    "summed": lambda: layers.Bidirectional(layers.LSTM(6), merge_mode="sum", name="units"),
    "steps": lambda: layers.TimeDistributed(layers.Dense(6, "softmax"), name="units"),
    "softmax": lambda: layers.Dense(6, "softmax", name="units"),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_units_that_the_layer_itself_needs(name: str) -> None:
    model = network(lambda x: gate(name="gate")(RECURRENT[name]()(x)))
    drop_units(find_gates(model)[0], [0, 3])
    report = prune(model)[1]
    assert assert_reasons(model, report) == 1
    kept = r"2 removed units kept for 'units' \(\w+: the units that stay depend on them\)"
    assert re.fullmatch(kept, reason(report, "units"))


@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN", "RNN", "summed"])
def test_norms_of_recurrent_units(name: str) -> None:
    model = network(lambda x: gate(name="gate")(RECURRENT[name]()(x)))
    _, report = prune(model, L2Norm(keep=0.5))
    assert report.gates[0].units_after == 3
    assert "the units that stay depend on them" in reason(report, "units")


def test_both_directions_side_by_side() -> None:
    layer = layers.Bidirectional(layers.GRU(4, return_sequences=True), name="units")
    model = network(lambda x: gate(name="gate")(layer(x)))
    _, report = prune(model, L2Norm(keep=0.25))
    assert report.gates[0].units_after == 2
    assert "6 removed units kept for 'units' (Bidirectional" in reason(report, "units")


def test_another_gate_on_the_same_units() -> None:
    def two_readers(x: Tensor) -> Tensor:
        one = layers.Dense(3)(gate(name="one")(x))
        return layers.Concatenate()([one, layers.Dense(3)(gate(name="two")(x))])

    model = randomise(network(two_readers), drop=0.0)
    one, two = find_gates(model)
    drop_units(one, [0, 1])
    drop_units(two, [1, 2])
    report = prune(model)[1]
    assert_reasons(model, report)
    for name in ("one", "two"):
        kept = f"1 removed unit kept for '{name}' (another gate, which keeps them)"
        assert kept in reason(report, "first")


def test_another_call_of_the_same_gate() -> None:
    def twice(x: Tensor) -> Tensor:
        shared = gate(name="gate")
        once = layers.Dense(8, name="second")(ops.softmax(shared(x)))
        return layers.Dense(4)(shared(once))

    model = network(twice)
    report = pruned(model, [0, 1, 5])
    assert assert_reasons(model, report) == 2
    assert "'gate' (another call of this gate needs them)" in reason(report, "second")


def test_rounding_is_a_reason() -> None:
    model = network(lambda x: layers.Dense(4)(gate(name="gate")(x)))
    report = pruned(model, [0, 1, 5], round_to=4)
    assert report.gates[0].units_after == 8
    expected = "3 removed units came back for a multiple of round_to"
    assert reason(report, "first") == report.gates[0].reason == expected


def test_whole_branch_that_goes_needs_no_reason() -> None:
    def branch(x: Tensor) -> Tensor:
        inner = layers.Conv1D(5, 3, padding="same", name="inner")(x)
        return layers.Concatenate()([layers.Dense(4)(x), gate(axis=(), name="gate")(inner)])

    report = pruned(network(branch), [0])
    assert report.gates[0].reason == ""
    assert reason(report, "inner") == "removed: nothing needs it"


def test_branch_that_others_read_before_the_gate() -> None:
    def branch(x: Tensor) -> Tensor:
        inner = layers.Conv1D(5, 3, padding="same", name="inner")(x)
        gated = gate(axis=(), name="gate")(inner)
        return layers.Concatenate()([layers.Dense(4, name="early")(inner), gated])

    report = pruned(network(branch), [0])
    assert "'early' (Dense: it reads them before the gate)" in reason(report, "inner")


def test_opaque_operations_have_rows() -> None:
    """Also where nothing was dropped, and no gate could be put."""
    model = network(fused_attention)
    _, report = prune(model)
    rows = {row.name: row for row in report.layers}
    named = [name for name in rows if name.startswith("transpose")]
    assert rows[named[0]].reason == "opaque: it moves or changes the batch axis"
    assert rows[named[0]].units_before == rows[named[0]].macs_before == 0
    assert {"name": named[0], "reason": rows[named[0]].reason}.items() <= next(
        each for each in report.to_dict()["layers"] if each["name"] == named[0]
    ).items()
