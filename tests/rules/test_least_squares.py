"""Greedy least squares against brute force, lstsq and degenerate data."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_sbp.rules.least_squares import RIDGE, Moments, refit, select


def moments_of(x, y, unit_of=None) -> Moments:
    moments = Moments.empty(np.arange(x.shape[1]) if unit_of is None else unit_of, y.shape[1])
    for rows in np.array_split(np.arange(len(x)), 3):  # they add up over batches
        moments.add(x[rows], y[rows])
    return moments


def problem(seed, units=8, size=1, always=0, targets=3, rows=80, noise=0.3):
    """Correlated features, and targets that they make but for noise; a layer as any other."""
    rng = np.random.default_rng(seed)
    features = units * size + always
    x = rng.normal(size=(rows, features)) @ (
        np.eye(features) + 0.4 * rng.normal(size=(features,) * 2)
    )
    x *= rng.uniform(0.1, 10, features)  # units of different scale
    y = x @ rng.normal(size=(features, targets)) / features + noise * rng.normal(
        size=(rows, targets)
    )
    unit_of = np.concatenate([np.repeat(np.arange(units), size), np.full(always, -1)])
    order = rng.permutation(features)  # blocks need not lie together
    return x[:, order], y, unit_of[order]


def residual(x, y, features) -> float:
    """With the ridge, which counts where random features almost depend on each other."""
    chosen = x[:, features]
    ridge = np.diag(np.sqrt(RIDGE) * np.linalg.norm(chosen, axis=0))
    chosen = np.concatenate([chosen, ridge])
    y = np.concatenate([y, np.zeros((len(ridge), y.shape[1]))])
    fitted = chosen @ np.linalg.lstsq(chosen, y, rcond=None)[0]
    return float(((y - fitted) ** 2).sum())


def features_of(unit_of, units):
    return np.isin(unit_of, [-1, *units])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    units=st.integers(1, 7),
    size=st.integers(1, 4),
    always=st.integers(0, 3),
)
def test_objective_is_the_residual_of_lstsq_and_each_step_is_the_best(seed, units, size, always):
    x, y, unit_of = problem(seed, units, size, always)
    result = select([moments_of(x, y, unit_of)], units)
    assert sorted(result.order) == list(range(units))
    assert (np.diff(result.objective) <= 0).all()
    for k in range(units + 1):
        expected = residual(x, y, features_of(unit_of, result.order[:k]))
        np.testing.assert_allclose(result.objective[k], expected, rtol=1e-3)
        if k < units:
            tried = [
                residual(x, y, features_of(unit_of, [*result.order[:k], u]))
                for u in range(units)
                if u not in result.order[:k]
            ]
            np.testing.assert_allclose(result.objective[k + 1], min(tried), rtol=1e-3)


@pytest.mark.parametrize("units", [6, 10, 12])
@pytest.mark.parametrize("seed", range(3))
def test_gain_is_never_further_from_the_best_than_the_bound(seed, units):
    x, y, _ = problem(seed, units)
    moments = moments_of(x, y)
    result = select([moments], units)
    scale = np.sqrt(moments.gram.diagonal())
    gamma = np.linalg.eigvalsh(moments.gram / scale / scale[:, None])[0]
    for k in range(1, units):
        best = max(
            moments.energy - residual(x, y, list(chosen))
            for chosen in combinations(range(units), k)
        )
        gain = moments.energy - result.objective[k]
        assert (1 - np.exp(-gamma)) * best <= gain <= best * (1 + 1e-6)


def test_several_layers_add_up():
    x, y, unit_of = problem(0, 6, 2)
    x2, y2, unit_of2 = problem(1, 6, 3, always=1)
    layers = [moments_of(x, y, unit_of), moments_of(x2, y2, unit_of2)]
    result = select(layers, 6)
    for k in range(7):
        expected = residual(x, y, features_of(unit_of, result.order[:k])) + residual(
            x2, y2, features_of(unit_of2, result.order[:k])
        )
        np.testing.assert_allclose(result.objective[k], expected, rtol=1e-3)


def test_relative_layers_have_the_same_say_whatever_their_scale():
    x, y, unit_of = problem(0, 6, 2, always=1)
    x2, y2, _ = problem(1, 6, 2, always=1)
    results = [
        select([moments_of(x, a * y, unit_of), moments_of(x2, y2, unit_of)], 6, relative=True)
        for a in (1.0, 1e4)
    ]
    assert list(results[0].order) == list(results[1].order)
    np.testing.assert_allclose(results[0].objective, results[1].objective, rtol=1e-6)
    assert results[0].objective[0] == pytest.approx(1.0)


def test_stops_when_enough_are_chosen():
    x, y, unit_of = problem(0, 9, 2)
    everything, three = (select([moments_of(x, y, unit_of)], 9, k) for k in (None, 3))
    assert list(three.order) == list(everything.order[:3])
    np.testing.assert_allclose(three.objective, everything.objective[:4])


def test_a_copy_of_a_unit_is_worth_nothing():
    x, y, _ = problem(0, 5, noise=0.0)
    x = np.concatenate([x, 3 * x], axis=1)  # units 5 to 9 repeat 0 to 4
    result = select([moments_of(x, y)], 10)
    assert sorted(u % 5 for u in result.order[:5]) == list(range(5))
    assert result.objective[5] <= 1e-6 * result.objective[0]
    assert np.isfinite(result.objective).all()


def test_dead_units_come_last_and_do_no_harm():
    x, y, unit_of = problem(0, 6, 2)
    x[:, np.isin(unit_of, [1, 4])] = 0
    result = select([moments_of(x, y, unit_of)], 6)
    assert sorted(result.order[-2:]) == [1, 4]
    assert result.objective[4] == result.objective[5] == result.objective[6]


def test_more_features_than_rows():
    x, y, unit_of = problem(0, 12, 3, rows=20)
    result = select([moments_of(x, y, unit_of)], 12)
    assert (np.diff(result.objective) <= 0).all()
    assert result.objective[-1] <= 1e-5 * result.objective[0]


def test_a_unit_that_a_layer_does_not_read_gains_nothing_there():
    x, y, unit_of = problem(0, 4, 2)
    result = select([moments_of(x, y, unit_of)], 6)  # units 4 and 5 have no feature
    assert set(result.order[4:]) == {4, 5}


def test_targets_that_are_all_zero():
    x, y, _ = problem(0, 4)
    result = select([moments_of(x, 0 * y)], 4, relative=True)
    assert list(result.objective) == [0] * 5


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), some=st.integers(0, 2**8 - 1))
def test_refit_is_lstsq(seed, some):
    x, y, _ = problem(seed)
    features = (some >> np.arange(8)) % 2 == 1
    weights = refit(moments_of(x, y), features)
    expected = np.zeros_like(weights)
    expected[features] = np.linalg.lstsq(x[:, features], y, rcond=None)[0]
    np.testing.assert_allclose(x @ weights, x @ expected, atol=1e-4 * np.abs(y).max())
    assert not weights[~features].any()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), ridge=st.sampled_from([1e-8, 1e-2, 1.0, 100.0]))
def test_refit_never_does_worse_than_what_it_is_drawn_towards(seed, ridge):
    x, y, _ = problem(seed, rows=6)  # fewer rows than features
    moments = moments_of(x, y)
    rng = np.random.default_rng(seed)
    old = rng.normal(size=moments.cross.shape)
    features = rng.random(8) < 0.6
    new = refit(moments, features, towards=old, ridge=ridge)
    assert moments.error(new) <= moments.error(old) * (1 + 1e-9)
    np.testing.assert_array_equal(new[~features], old[~features])


def test_refit_keeps_weights_where_nothing_is_missing():
    x, _, _ = problem(0)
    weights = np.random.default_rng(0).normal(size=(8, 3))
    refitted = refit(moments_of(x, x @ weights), np.ones(8, bool), towards=weights)
    np.testing.assert_allclose(refitted, weights, rtol=1e-9)


def test_error_is_that_of_the_data():
    x, y, _ = problem(0)
    weights = np.random.default_rng(0).normal(size=(8, 3))
    moments = moments_of(x, y)
    assert moments.error(weights) == pytest.approx(((y - x @ weights) ** 2).sum())
    twice = moments + moments
    assert twice.error(weights) == pytest.approx(2 * moments.error(weights))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_refuses_what_is_not_finite(bad):
    x, y, _ = problem(0)
    moments = Moments.empty(np.arange(8), 3, name="reader")
    with pytest.raises(ValueError, match="inputs of layer 'reader' are not finite"):
        moments.add(np.where(x == x.max(), bad, x), y)
    with pytest.raises(ValueError, match="targets of layer 'reader' are not finite"):
        moments.add(x, np.where(y == y.max(), bad, y))
    moments.cross[0, 0] = bad
    with pytest.raises(ValueError, match="moments of layer 'reader' are NaN or infinite"):
        select([moments], 8)


def test_refuses_numbers_that_do_not_fit():
    x, y, _ = problem(0)
    with pytest.raises(ValueError, match="wanted=9, units=8"):
        select([moments_of(x, y)], 8, 9)
    with pytest.raises(ValueError, match="belongs to unit 7"):
        select([moments_of(x, y)], 7)
    with pytest.raises(ValueError, match="0 layers"):
        select([], 7)
