from __future__ import annotations

import keras
import numpy as np
import pytest
from scipy import special as scipy_special

from keras_sbp.distributions import special

HOST = (np, "float64", np.asarray)
TENSOR = (keras.ops, "float32", lambda x: keras.ops.convert_to_tensor(x, "float32"))
both = pytest.mark.parametrize(("xp", "dtype", "convert"), [HOST, TENSOR], ids=["host", "tensor"])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-7), ("float64", 1e-13)])
def test_the_rule_resolves_a_whole_bell(dtype, tolerance):
    rule = special.quadrature(dtype, np)
    reach = np.sqrt(2 * rule.drop)
    u = reach * (2 * rule.nodes.astype("float64") - 1)
    integral = 2 * reach * np.sum(rule.weights * np.exp(-(u**2) / 2))
    assert integral == pytest.approx(np.sqrt(2 * np.pi), rel=tolerance)


@both
def test_reach_solves_its_equation(xp, dtype, convert):
    tau = np.array([-1e10, -3.0, 0.0, 1e-3, 2.0, 1e6])
    u = np.asarray(special.reach(convert(tau), 18.0, xp), "float64")
    np.testing.assert_allclose(u**2 / 2 + np.abs(tau) * u, 18.0, rtol=1e-6)


@both
def test_normal_tails_are_relatively_precise(xp, dtype, convert):
    x = np.linspace(-12.5, 12.5, 101)
    below, above = special.normal_tails(convert(x), special.quadrature(dtype, xp), xp)
    rtol = 1e-12 if dtype == "float64" else 3e-5
    np.testing.assert_allclose(np.asarray(below), scipy_special.ndtr(x), rtol=rtol)
    np.testing.assert_allclose(np.asarray(above), scipy_special.ndtr(-x), rtol=rtol)


def test_the_quantile_inverts_the_upper_tail():
    z = np.linspace(0, 12.5, 2001)
    root = np.sqrt(-scipy_special.log_ndtr(-z))
    numerator, denominator = special.QUANTILE[:5], special.QUANTILE[5:]
    found = np.polyval(numerator, root) / np.polyval(denominator, root)
    np.testing.assert_allclose(found, z, atol=5e-7)
