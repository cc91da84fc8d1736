"""sweep(): one row per rule, and nothing is changed."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from rich.console import Console

import keras_sbp
from keras_sbp import Budget, L1Norm, Random
from tests.pruning.test_rules import LOSS, X, Y, network


def compiled() -> keras.Model:
    model = network()
    model.compile(loss=LOSS, metrics=["accuracy"])
    return model


def test_rows() -> None:
    model = compiled()
    before = [w.copy() for w in model.get_weights()]
    rules = {"l1": [L1Norm(0.5), L1Norm(0.25)], "random": Random(0.5), "none": Budget(1e-4)}
    rules["none"] = Budget(macs=1e-4, base=L1Norm())
    result = keras_sbp.sweep(model, rules, (X, Y), verbose=0)
    assert [row.label for row in result.rows] == ["all units", "l1", "l1", "random", "none"]
    whole, half, *_, failed = result.rows
    small, report = keras_sbp.prune(model, L1Norm(0.5))
    small.compile(loss=LOSS, metrics=["accuracy"])
    expected = small.evaluate(X, Y, verbose=0, return_dict=True)["accuracy"]
    assert (half.metric, half.score) == ("accuracy", pytest.approx(expected))
    assert (half.macs, half.params) == (report.macs_after, report.params_after)
    unpruned = model.evaluate(X, Y, verbose=0, return_dict=True)["accuracy"]
    assert whole.score == pytest.approx(unpruned)
    assert whole.macs == whole.macs_before == report.macs_before
    assert failed.score is None
    assert "cannot be met" in failed.error
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_table_shows_every_rule_and_what_failed() -> None:
    rules = {"fine": L1Norm(), "too much": Budget(macs=1e-4, base=L1Norm())}
    result = keras_sbp.sweep(compiled(), rules, (X, Y), verbose=0)
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    result.print(console)
    text = console.export_text()
    assert "fine" in text and "cannot be met" in text
    assert result.to_dict()["rows"][1]["label"] == "fine"


def test_pareto() -> None:
    row = keras_sbp.pruning.SweepRow
    rows = [
        row("a", "", metric="accuracy", score=0.9, macs=100),
        row("b", "", metric="accuracy", score=0.8, macs=50),
        row("c", "", metric="accuracy", score=0.7, macs=60),
        row("d", "", error="no"),
    ]
    assert [r.label for r in keras_sbp.pruning.SweepResult(tuple(rows)).pareto()] == ["a", "b"]
    losses = [row(r.label, "", metric="loss", score=r.score, macs=r.macs) for r in rows[:3]]
    assert {r.label for r in keras_sbp.pruning.SweepResult(tuple(losses)).pareto()} == {"b", "c"}


def test_picture(tmp_path) -> None:
    result = keras_sbp.sweep(compiled(), [L1Norm(0.5), Random(0.5)], (X, Y), verbose=0)
    figure = result.plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert len(figure.axes[0].get_lines()) == 3


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ValueError, match="not compiled"):
        keras_sbp.sweep(network(), [L1Norm()], (X, Y))
    with pytest.raises(ValueError, match="at least one rule"):
        keras_sbp.sweep(compiled(), [], (X, Y))
    with pytest.raises(TypeError, match="expected rules"):
        keras_sbp.sweep(compiled(), {"half": 0.5}, (X, Y), verbose=0)
    with pytest.raises(ValueError, match="'f1'.*accuracy"):
        keras_sbp.sweep(compiled(), [L1Norm()], (X, Y), metric="f1", verbose=0)


def test_a_generator_of_examples_verifies_every_rule() -> None:
    examples = (batch for batch in [(X[:8], Y[:8]), (X[8:16], Y[8:16])])
    rules = {"l1": [L1Norm(0.5), L1Norm(0.25)]}
    result = keras_sbp.sweep(compiled(), rules, (X, Y), verbose=0, verify=examples)
    assert [row.error for row in result.rows] == [""] * 3
    assert list(examples) == []


def test_a_generator_of_examples_reweights_after_every_rule() -> None:
    results = [
        keras_sbp.sweep(compiled(), [L1Norm(0.5), L1Norm(0.25)], (X, Y), verbose=0, reweight=each)
        for each in (X[:16], (batch for batch in [(X[:8], Y[:8]), (X[8:16], Y[8:16])]))
    ]
    scores = [[row.score for row in result.rows] for result in results]
    assert scores[0] == pytest.approx(scores[1])
