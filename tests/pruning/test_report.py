"""The report's figures, against counts by hand."""

from __future__ import annotations

import functools
import io
import json

import keras
import numpy as np
import pytest
from keras import Input, Model, Sequential, layers
from rich.console import Console

from keras_sbp import L1Norm
from keras_sbp.layers import find_gates
from keras_sbp.printing import folded, short
from keras_sbp.pruning import LayerReport, PruneReport, prune
from tests.pruning.oracle import drop_units, gate, randomise


def lenet() -> PruneReport:
    model = Sequential(
        [
            Input((28, 28, 1), name="image"),
            layers.Conv2D(20, 5, activation="relu", name="conv1"),
            gate(name="gate1"),
            layers.MaxPooling2D(),
            layers.SeparableConv2D(50, 5, activation="relu", name="conv2"),
            gate(name="gate2"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Flatten(),
            layers.Dense(100, activation="relu", name="dense"),
            layers.Dense(10, name="logits"),
        ]
    )
    randomise(model, drop=0.0)
    drop_units(find_gates(model)[0], [0, 1, 2, 3])
    drop_units(find_gates(model)[1], list(range(20)))
    return prune(model)[1]


def test_figures_by_hand() -> None:
    report = lenet()
    rows = {row.name: row for row in report.layers}
    assert list(rows) == ["image", "conv1", "conv2", "depthwise", "dense", "logits"]
    conv1, conv2, depthwise, dense = (rows[n] for n in list(rows)[1:5])
    assert (conv1.units_before, conv1.units_after) == (20, 16)
    assert (conv1.params_before, conv1.params_after) == (20 * 26, 16 * 26)
    assert (conv1.macs_before, conv1.macs_after) == (24 * 24 * 25 * 20, 24 * 24 * 25 * 16)
    assert (conv2.params_before, conv2.params_after) == (
        25 * 20 + 20 * 50 + 50,
        25 * 16 + 16 * 30 + 30,
    )
    assert (conv2.macs_before, conv2.macs_after) == (
        64 * (25 * 20 + 20 * 50),
        64 * (25 * 16 + 16 * 30),
    )
    assert (depthwise.macs_before, depthwise.macs_after) == (36 * 9 * 50, 36 * 9 * 30)
    assert (dense.macs_before, dense.macs_after) == (36 * 50 * 100, 36 * 30 * 100)
    assert [(g.name, g.units_before, g.units_after) for g in report.gates] == [
        ("gate1", 20, 16),
        ("gate2", 50, 30),
    ]


def test_totals_are_sums_and_the_dict_is_json() -> None:
    report = lenet()
    for total in ("units_before", "units_after", "params_before", "params_after"):
        assert getattr(report, total) == sum(getattr(row, total) for row in report.layers)
    data = json.loads(json.dumps(report.to_dict()))
    assert data["macs_after"] == report.macs_after
    assert data["layers"][1]["units_after"] == 16
    assert 0 < data["max_abs_error"] < 1e-4


def test_print_shows_layers_and_totals() -> None:
    report, out = lenet(), io.StringIO()
    report.print(Console(file=out, width=140))
    text = out.getvalue()
    for part in ("conv1", "20 → 16", "total", "fewer MACs", "max |Δ|"):
        assert part in text


@functools.cache
def residual() -> PruneReport:
    """Two residual blocks with normalisation, gates inside and on the stream behind the first."""
    x = image = Input((8, 8, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", name="stem_convolution")(x)
    for block in ("first_residual_block", "second_residual_block"):
        y = layers.Conv2D(32, 3, padding="same", name=f"{block}_expanding_convolution")(x)
        y = layers.ReLU()(layers.BatchNormalization(name=f"{block}_normalisation")(y))
        y = gate(name=f"{block}_gate")(y)
        y = layers.Conv2D(16, 3, padding="same", name=f"{block}_projecting_convolution")(y)
        y = gate(name=f"{block}_gate_on_the_stream")(y)
        x = layers.Add(name=f"{block}_add")([x, y])
        x = layers.BatchNormalization(name=f"{block}_normalisation_of_the_stream")(x)
    model = Model(image, layers.Dense(10, name="logits")(layers.Flatten()(x)))
    randomise(model, drop=0.0)
    for each in find_gates(model):
        drop_units(each, [0, 1, 2])
    return prune(model)[1]


def printed(report: PruneReport, width: int = 80) -> str:
    out = io.StringIO()
    report.print(Console(file=out, width=width))
    return out.getvalue()


def first_column(text: str) -> list[str]:
    """The names in the table, those of several lines put together."""
    names: list[str] = []
    for line in text.splitlines():
        if line.startswith("│"):
            cells = [cell.strip() for cell in line.strip("│").split("│")]
            if any(cells[1:]):
                names.append(cells[0])
            else:
                names[-1] += cells[0]
    return names


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_print_breaks_no_word_and_cuts_no_name(width) -> None:
    report = residual()
    text = printed(report, width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text
    blocks = ("first_residual_block", "second_residual_block")
    inner = [f"{b}_{kind}_convolution" for b in blocks for kind in ("expanding", "projecting")]
    assert first_column(text) == ["image", "stem_convolution", *inner, "logits", "total"]
    whole = [line for line in lines if "32 → 29" in line]
    assert len(whole) == 2
    assert all(line.count("→") == 3 for line in whole)


@pytest.mark.parametrize("report", [lenet, residual])
def test_print_names_the_layers_in_forty_columns(report) -> None:
    text = printed(report(), 40)
    assert max(map(len, text.splitlines())) <= 40
    assert "…" not in text
    makers = [row.name for row in report().layers if row.units_before and not row.behind]
    assert "".join(first_column(text)) == "".join([*makers, "total"])


def test_print_adds_normalisation_to_the_layer_that_it_follows() -> None:
    report = residual()
    rows = {row.name: row for row in report.layers}
    block = "first_residual_block"
    main = rows[f"{block}_expanding_convolution"]
    inner = rows[f"{block}_normalisation"]
    assert inner.behind == main.name
    assert main.behind == ""
    # Several layers write the stream: the last of them.
    of_stream = rows[f"{block}_normalisation_of_the_stream"]
    assert of_stream.behind == f"{block}_projecting_convolution"
    text = printed(report, 120)
    before, after = (
        getattr(main, w) + getattr(inner, w) for w in ("params_before", "params_after")
    )
    assert f"{before:,} → {after:,}" in text
    assert f"{report.params_before:,} → {report.params_after:,}" in text
    assert of_stream.name in {row["name"] for row in report.to_dict()["layers"]}


def test_print_says_each_reason_once_below_the_table() -> None:
    rows = [LayerReport(name, 4, 4, 8, 8, 8, 8, "kept for [one] reason") for name in "abc"]
    report = PruneReport((*rows, LayerReport("d[e]", 4, 4, 8, 8, 8, 8)), (), None)
    text = printed(report)
    assert text.count("kept for [one] reason") == 1
    assert "'a', 'b', 'c': kept for [one] reason" in text
    assert text.index("total") < text.index("kept for")
    assert "d[e]" in text
    assert "not verified" in text


def test_print_groups_what_is_in_one_layer() -> None:
    names = ["stem", "encoder/attention/query", "encoder/attention/key", "encoder/up", "head"]
    report = PruneReport(tuple(LayerReport(n, 4, 2, 8, 4, 8, 4) for n in names), (), 1e-7)
    lines = [line.split("│")[1].rstrip() for line in printed(report).splitlines() if "│" in line]
    heading, query = " encoder/attention/", "   query"
    assert lines == [" stem", heading, query, "   key", " encoder/up", " head", " total"]


def test_print_shows_layers_of_one_name() -> None:
    rows = [LayerReport("dense", 4, 2, cost, cost, 0, 0) for cost in (11, 22)]
    rows.append(LayerReport("norm", 4, 2, 5, 5, 0, 0, behind="dense"))
    text = printed(PruneReport(tuple(rows), (), 1e-7))
    assert first_column(text) == ["dense", "dense", "total"]
    assert "11 │" in text and "27 │" in text and "38 │" in text


def test_print_fills_no_line_up_with_spaces() -> None:
    rows = (LayerReport("a", 4, 4, 8, 8, 8, 8, "many words of a reason " * 12),)
    lines = printed(PruneReport(rows, (), 1e-7)).splitlines()
    assert [line for line in lines if line != line.rstrip()] == []
    said = lines[[line.startswith("- 'a'") for line in lines].index(True) :]
    assert len(said) > 1
    assert all(line.startswith("  ") for line in said[1:])


def test_names_of_rules_break_behind_a_bracket() -> None:
    assert folded("SNRThreshold(threshold=1.0)", 26).plain == "SNRThreshold(\n  threshold=1.0)"


def test_print_gives_no_number_of_units_to_what_has_none() -> None:
    tokens = Input((), dtype="int32", name="tokens")
    model = Model(tokens, layers.Dense(2, name="dense")(layers.Embedding(5, 3)(tokens)))
    lines = printed(prune(model)[1]).splitlines()
    (row,) = [line for line in lines if "tokens" in line and "│" in line]
    assert row.strip("│").split("│")[1].strip() == ""


def test_which_features_of_an_input_stay() -> None:
    x = Input((30,), name="measurements")
    y = gate(name="of_features")(x)
    model = Model(x, layers.Dense(4, name="dense")(y))
    randomise(model, drop=0.0)
    stays = [0, 1, 2, 3, 7]
    drop_units(find_gates(model)[0], [unit for unit in range(30) if unit not in stays])
    small, report = prune(model)
    row, dense = report.layers
    assert np.flatnonzero(row.keep).tolist() == stays
    assert row.axis == 1
    assert dense.keep is dense.axis is None
    assert json.loads(json.dumps(report.to_dict()))["layers"][0]["keep"] == list(row.keep)
    assert "of 'measurements' (axis 1) the network reads features 0–3, 7 of 30" in printed(report)
    x = np.random.default_rng(0).normal(size=(2, 30)).astype("float32")
    y, same = (keras.ops.convert_to_numpy(small(v)) for v in (x, np.where(row.keep, x, 7.0)))
    np.testing.assert_array_equal(y, same)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_print_into_a_pipe_of_any_encoding(encoding) -> None:
    pipe = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    residual().print(Console(file=pipe, width=100))
    pipe.flush()
    text = pipe.buffer.getvalue().decode(encoding)
    assert "32 → 29" in text.replace(">", "→")
    assert "?" not in text
    assert "fewer MACs" in text


def test_summary_is_like_that_of_a_keras_model(caplog) -> None:
    report = residual()
    told: list[str] = []
    report.summary(line_length=90, print_fn=told.append)
    assert told == [printed(report, 90)]
    keras.config.disable_interactive_logging()
    try:
        with caplog.at_level("INFO", logger="keras_sbp"):
            report.summary(line_length=90)
    finally:
        keras.config.enable_interactive_logging()
    assert caplog.messages == told


def test_summary_goes_to_standard_output(capsys) -> None:
    residual().summary(line_length=90)
    assert capsys.readouterr().out == printed(residual(), 90)


def test_repr_is_one_line_that_says_what_matters() -> None:
    report = lenet()
    assert repr(report.layers[1]) == (
        "LayerReport('conv1', units 20 → 16, params 520 → 416, MACs 288,000 → 230,400)"
    )
    assert repr(report.gates[1]) == "GateReport('gate2', units 50 → 30)"
    assert repr(report).startswith(f"PruneReport({report}, max |Δ| ")
    assert "not verified" in repr(PruneReport((), (), None))


@pytest.mark.parametrize(
    ("number", "shown"),
    [(9_999, "9,999"), (10_000, "10.0k"), (999_499, "999k"), (999_500, "1.00M")],
)
def test_short_numbers(number, shown) -> None:
    assert short(number) == shown


def test_says_what_the_small_model_was_compared_with() -> None:
    x = Input((6,))
    plain = randomise(Model(x, layers.Dense(3)(layers.Dense(8, activation="relu")(x))))
    said = {
        "against the given model without the units that the rule drops": L1Norm(0.5),
        "against the given model)": None,
    }
    for words, rule in said.items():
        _, report = prune(plain, rule)
        assert words in repr(report)
        assert not report.gated
    assert "against the gated model" in repr(lenet())
    assert lenet().gated
