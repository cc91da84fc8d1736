"""The pruned networks in benchmarks/models are what the table says that they are.

Their errors are measured again where MNIST is at hand: in the folder that KERAS_SBP_DATA names, or
where `keras.datasets` keeps what it has downloaded. Nothing is downloaded here.
"""

from __future__ import annotations

import json
import os
import pathlib

import keras
import numpy as np
import pytest

from benchmarks.paper.__main__ import RESULTS
from benchmarks.paper.page import kept
from benchmarks.paper.store import MODELS, STORED
from keras_sbp.demo.data import DATA_VARIABLE
from keras_sbp.formats.litert_model import LiteRTModel
from keras_sbp.program import macs, trace

ROWS = json.loads((RESULTS / "paper.json").read_text())["rows"]
SPEED = json.loads((RESULTS / "paper_speed.json").read_text())["networks"]
GOALS = {"lenet_500_300": (1.50, 20.0, 10.0), "lenet5_caffe": (0.75, 18.0, 8.0)}


def load(name: str) -> keras.Model:
    return keras.saving.load_model(MODELS / f"{name}.keras")


def measured(name: str) -> dict:
    """What the table has of the network that is stored."""
    row = STORED[name]
    return ROWS[row]["seeds"][SPEED[name]["seeds"][row]]


def images_of_mnist() -> tuple[np.ndarray, np.ndarray]:
    """MNIST's test images in [0, 1], and their labels."""
    downloads = pathlib.Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "datasets"
    for folder in (os.environ.get(DATA_VARIABLE, downloads), downloads):
        path = pathlib.Path(folder) / "mnist.npz"
        if path.exists():
            with np.load(path) as file:
                return file["x_test"][..., None].astype("float32") / 255.0, file["y_test"]
    pytest.skip(f"MNIST is not at hand: {DATA_VARIABLE} names no folder with mnist.npz.")


def run_one_by_one(name: str, x: np.ndarray) -> np.ndarray:
    """The logits of the .tflite file, in batches of 1."""
    small = LiteRTModel(MODELS / f"{name}.tflite")
    ((input_name, (shape, dtype)),) = small.inputs.items()
    assert shape == (1, 28, 28, 1)
    assert dtype == np.float32
    rows = [small({input_name: x[i : i + 1]}) for i in range(len(x))]
    return np.concatenate([next(iter(row.values())) for row in rows])


@pytest.mark.parametrize("name", STORED)
def test_they_are_small_networks_of_stock_layers(name: str) -> None:
    model = load(name)
    result = measured(name)
    assert model.input_shape == (None, 28, 28, 1)
    assert model.output_shape == (None, 10)
    assert {layer.__class__.__module__.split(".")[0] for layer in model.layers} == {"keras"}
    assert sum(macs(op) for op in trace(model).ops) == result["macs"]
    kernels = {layer.name: layer.kernel.shape for layer in model.layers if hasattr(layer, "kernel")}
    assert kept(kernels) == kept(result["kernels"])


@pytest.mark.parametrize("name", STORED)
def test_the_goals_are_met(name: str) -> None:
    error, fewer_macs, faster = GOALS[name]
    result = measured(name)
    assert result["error"] <= error
    assert result["dense_macs"] / result["macs"] >= fewer_macs
    assert SPEED[name]["faster"][STORED[name]] >= faster


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", STORED)
def test_both_files_hold_the_same_function(name: str) -> None:
    x = np.random.default_rng(0).random((16, 28, 28, 1)).astype("float32")
    expected = load(name).predict(x, verbose=0)
    found = run_one_by_one(name, x)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 0.1


@pytest.mark.parametrize("name", STORED)
def test_their_error_is_what_the_table_says(name: str) -> None:
    x, y = images_of_mnist()
    predicted = load(name).predict(x, batch_size=1000, verbose=0).argmax(-1)
    wrong = int((predicted != y).sum())
    # One image may lie on the border of two classes, and fall either way on another machine.
    assert abs(wrong - 100 * measured(name)["error"]) <= 1


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", STORED)
def test_error_of_the_litert_file(name: str) -> None:
    x, y = images_of_mnist()
    predicted = run_one_by_one(name, x).argmax(-1)
    assert abs(int((predicted != y).sum()) - 100 * measured(name)["error"]) <= 1
