"""Extras that messages name are there, and bring what is missing."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from keras import Input, Sequential, layers

import keras_sbp

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]


def brings(extra: str, package: str) -> bool:
    """Whether an extra of this package asks for another package."""
    return any(requirement.startswith(package) for requirement in EXTRAS[extra])


@pytest.mark.remedy("Install it: pip install 'keras-sbp[plot]'")
def test_plot_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = Sequential([Input((6,)), layers.Dense(8), layers.Dense(2)])
    model.compile(loss="mse", metrics=["mae"])
    x = np.ones((4, 6), "float32")
    result = keras_sbp.sweep(model, [keras_sbp.L2Norm(0.5)], (x, x[:, :2]), verbose=0)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(ImportError, match=r"keras-sbp\[plot\]"):
            result.plot(tmp_path / "sweep.png")
    assert brings("plot", "matplotlib")
    result.plot(tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size
