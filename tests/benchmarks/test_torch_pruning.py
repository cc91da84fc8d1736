"""Networks are the same in PyTorch, are cut there by Torch-Pruning, and come back the same."""

from __future__ import annotations

import sys

import keras
import numpy as np
import pytest
from keras import layers

from benchmarks.paper.torch_pruning import cut, pruned, to_keras, to_torch
from keras_sbp.program import macs, trace

pytestmark = [
    pytest.mark.peer,
    # Of speed: PyTorch pads a copy.
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 13, 11, 2)).astype("float32")
Y = RNG.integers(5, size=(64, 1))


def network(padding: str = "valid") -> keras.Model:
    """Odd sizes; some units of every layer weigh more than others."""
    model = keras.Sequential(
        [
            keras.Input((13, 11, 2), name="image"),
            layers.Conv2D(12, (3, 2), padding=padding, use_bias=False, name="conv1"),
            layers.BatchNormalization(name="bn1"),
            layers.ReLU(name="relu1"),
            layers.MaxPooling2D(padding=padding, name="pool1"),
            layers.Conv2D(16, (2, 3), padding=padding, activation="relu", name="conv2"),
            layers.BatchNormalization(scale=False, name="bn2"),
            layers.MaxPooling2D(padding=padding, name="pool2"),
            layers.Flatten(name="flatten"),
            layers.Dropout(0.5, name="drop"),
            layers.Dense(30, name="dense1"),
            layers.BatchNormalization(center=False, name="bn3"),
            layers.ReLU(name="relu3"),
            layers.Dense(20, activation="relu", name="dense2"),
            layers.Dense(5, name="logits"),
        ]
    )
    rng = np.random.default_rng(1)
    for variable in model.weights:
        if variable.name == "kernel":
            variable.assign(variable * rng.lognormal(0.0, 0.7, variable.shape[-1]))
        elif variable.name == "moving_variance":
            variable.assign(rng.uniform(1e-3, 2.0, variable.shape))
        else:
            variable.assign(rng.normal(0.5, 0.3, variable.shape))
    return model


def cost(model: keras.Model) -> int:
    return sum(macs(op) for op in trace(model).ops)


def of_torch(net: object) -> np.ndarray:
    import torch

    return net(torch.tensor(np.moveaxis(X, -1, 1))).detach().numpy()


def assert_close(y: np.ndarray, expected: np.ndarray) -> None:
    assert y.shape == expected.shape
    assert np.abs(y - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_the_same_in_torch(padding: str) -> None:
    model = network(padding)
    assert_close(of_torch(to_torch(model)), model.predict(X, verbose=0))


def test_the_same_without_convolutions() -> None:
    model = keras.Sequential(
        [keras.Input((13, 11, 2)), layers.Flatten(), layers.Flatten(), layers.Dense(5)]
    )
    assert_close(of_torch(to_torch(model)), model.predict(X, verbose=0))


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_nothing_pruned_is_the_same_network(padding: str) -> None:
    model = network(padding)
    whole = pruned(model, "l1", 1.0, X, Y)
    np.testing.assert_array_equal(whole.predict(X, verbose=0), model.predict(X, verbose=0))


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("fraction", [0.5, 0.25])
@pytest.mark.parametrize("importance", ["l1", "taylor"])
def test_pruned(importance: str, fraction: float, padding: str) -> None:
    import torch

    model = network(padding)
    before, state = model.get_weights(), torch.get_rng_state()
    in_torch = cut(model, importance, fraction, X, Y)
    small = to_keras(model, in_torch)

    assert 0.6 * fraction < cost(small) / cost(model) <= fraction
    assert small.input_shape == model.input_shape
    assert small.output_shape == model.output_shape
    assert [(type(a), a.name) for a in small.layers] == [(type(a), a.name) for a in model.layers]
    assert small.get_layer("bn1").epsilon == model.get_layer("bn1").epsilon
    assert_close(small.predict(X, verbose=0), of_torch(in_torch))

    assert torch.equal(torch.get_rng_state(), state)
    for value, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, old)


def test_a_cut_network_keeps_the_units_weights() -> None:
    model = network()
    old, new = (m.get_layer("conv1").kernel for m in (model, pruned(model, "l1", 0.5, X, Y)))
    old, new = (keras.ops.convert_to_numpy(kernel) for kernel in (old, new))
    kept = [unit for unit in range(12) if (old[..., unit, None] == new).all((0, 1, 2)).any()]
    np.testing.assert_array_equal(new, old[..., kept])
    assert 0 < len(kept) < 12


def test_importances_differ() -> None:
    model = network()
    l1, taylor = (pruned(model, name, 0.3, X, Y).predict(X, verbose=0) for name in ("l1", "taylor"))
    assert np.abs(l1 - taylor).max() > 1e-3


def test_a_layer_of_one_unit_stays() -> None:
    parts = [layers.Dense(8, activation="relu"), layers.Dense(1), layers.Dense(8), layers.Dense(5)]
    model = keras.Sequential([keras.Input((13, 11, 2)), layers.Flatten(), *parts])
    small = pruned(model, "l1", 0.5, X, Y)
    assert small.layers[2].units == 1
    assert 0.3 < cost(small) / cost(model) <= 0.5


@pytest.mark.parametrize("importance", ["l1", "taylor"])
def test_what_cannot_be_reached_is_refused(importance: str) -> None:
    with pytest.raises(ValueError, match=rf"\({importance}\) cannot prune .* to 0\.01 of"):
        pruned(network(), importance, 0.01, X, Y)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (layers.Conv2D(4, 3, strides=2, name="it"), r"strides is \(2, 2\)"),
        (layers.Conv2D(4, 3, groups=2, name="it"), "groups is 2"),
        (layers.Conv2D(4, 3, activation="elu", name="it"), "activation is elu"),
        (layers.MaxPooling2D(3, name="it"), r"pool_size is \(3, 3\)"),
        (layers.BatchNormalization(axis=1, name="it"), "axis is 1"),
        (layers.ReLU(6.0, name="it"), "max_value is 6.0"),
        (layers.Dense(4, name="it"), "input has 4 axes"),
        (layers.AveragePooling2D(2, name="it"), "expected one of Conv2D, "),
    ],
)
def test_other_layers_are_named(layer: layers.Layer, why: str) -> None:
    model = keras.Sequential([keras.Input((13, 11, 2)), layer, layers.Flatten(), layers.Dense(5)])
    with pytest.raises(ValueError, match=rf"Layer 'it' \({type(layer).__name__}\) .*{why}"):
        pruned(model, "l1", 0.5, X, Y)


def test_a_norm_of_what_was_flattened_is_named() -> None:
    model = keras.Sequential(
        [
            keras.Input((13, 11, 2)),
            layers.Flatten(),
            layers.BatchNormalization(name="it"),
            layers.Dense(5),
        ]
    )
    with pytest.raises(ValueError, match="'it' .* normalises what was flattened"):
        to_torch(model)


def test_branches_are_named() -> None:
    x = keras.Input((6,))
    hidden = layers.Dense(6)(x)
    model = keras.Model(x, layers.Add(name="it")([x, hidden]))
    with pytest.raises(ValueError, match="'it' .* does not follow the one before it"):
        to_torch(model)
    with pytest.raises(ValueError, match="returns more than"):
        to_torch(keras.Model(x, [hidden, layers.Dense(2)(hidden)]))
    layer = layers.Dense(6, name="it")
    with pytest.raises(ValueError, match="'it' .* is called twice"):
        to_torch(keras.Model(x, layer(layer(x))))


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(SystemExit, match=r'torch_pruning .* pip install "keras-sbp\[peer\]"'):
        to_torch(network())
