"""What insert_sbp keeps of the given network: everything but the compile state."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import Input, Model, layers, ops

import keras_sbp
from keras_sbp.layers import find_gates
from tests.insertion.gate_map import gate_map
from tests.pruning.oracle import random_inputs, randomise

needs_double = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX has double precision behind a switch only"
)


def network() -> Model:
    """Convolutions, a squeeze-and-excite, a residual block, dropout, two inputs and outputs."""
    image, extra = Input((8, 8, 3), name="image"), Input((4,), name="extra")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(image)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="bn")(x))
    y = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    x = layers.Multiply(name="scale")([x, layers.Conv2D(8, 1, activation="tanh")(y)])
    y = layers.Conv2D(8, 3, padding="same", activation="gelu", name="branch")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x + y)
    x = layers.Concatenate(name="join")([x, layers.Dense(5, "relu", name="side")(extra)])
    x = layers.Dense(8, "relu", name="hidden")(layers.Dropout(0.3, seed=1, name="drop")(x))
    return Model(
        {"extra": extra, "image": image},
        {"a": layers.Dense(2, name="a")(x), "b": layers.Dense(3, "softmax", name="b")(x)},
        name="net",
    )


def run(model: Model, inputs) -> list[np.ndarray]:
    outputs = keras.tree.flatten(model(inputs, training=False))
    return [ops.convert_to_numpy(x) for x in outputs]


def assert_equal_outputs(a: Model, b: Model, tolerance: float) -> None:
    inputs = random_inputs(a)
    for x, y in zip(run(a, inputs), run(b, inputs), strict=True):
        assert np.ptp(x, axis=0).max() > 1e-3
        assert np.abs(x - y).max() <= tolerance * np.abs(x).max()


@pytest.mark.parametrize("options", [{}, {"tie_residual": True}, {"gate": "branch"}])
def test_gates_of_one_change_nothing(options) -> None:
    model = randomise(network())
    gated = keras_sbp.insert_sbp(model, log_sigma_initializer=-20.0, **options)
    assert find_gates(gated)
    assert_equal_outputs(model, gated, 1e-6)


def test_given_model_is_untouched() -> None:
    model = network()
    before = model.get_config(), [w.copy() for w in model.get_weights()]
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    gated = keras_sbp.insert_sbp(model)
    randomise(gated)
    assert model.get_config() == before[0]
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before[1], strict=True))
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes
    assert not {id(w) for w in model.variables} & {id(w) for w in gated.variables}


def test_first_gates_mean_is_the_documented_one() -> None:
    for options, expected in [({}, 1 - 0.9946), ({"log_sigma_initializer": -10.0}, 3.6e-5)]:
        gate = find_gates(keras_sbp.insert_sbp(network(), **options))[0]
        assert 1 - gate.posterior.mean()[0] == pytest.approx(expected, rel=0.01)


@needs_double
def test_chain_of_homogeneous_layers_is_multiplied_by_a_power_of_the_mean() -> None:
    keras.config.set_dtype_policy("float64")
    features = Input((6,))
    x = features
    for units in (8, 7, 9):
        x = layers.LeakyReLU()(layers.Dense(units, use_bias=False)(x))
    model = randomise(Model(features, layers.Dense(3, use_bias=False)(x)))
    gated = keras_sbp.insert_sbp(model)
    mean = find_gates(gated)[0].posterior.mean()[0]
    inputs = random_inputs(model)
    assert run(gated, inputs)[0] == pytest.approx(mean**3 * run(model, inputs)[0], rel=1e-12)
    assert mean**3 >= 1 - 3 * 0.0054


def test_difference_is_within_the_slope_bound() -> None:
    model = randomise(network())
    gated = keras_sbp.insert_sbp(model)
    trial = keras_sbp.insert_sbp(model, log_sigma_initializer=-20.0)
    inputs = random_inputs(model)
    mean = find_gates(gated)[0].posterior.mean()[0]

    def at(factor: float) -> list[np.ndarray]:
        for gate in find_gates(trial):
            gate.set_posterior(np.log(factor), -20.0)
        return run(trial, inputs)

    points = [at(s) for s in np.linspace(mean, 1 - 1e-6, 9)]
    slopes = [
        max(np.abs(b[i] - a[i]).max() for a, b in zip(points, points[1:], strict=False))
        / ((1 - mean) / 8)
        for i in range(2)
    ]
    pairs = zip(run(model, inputs), run(gated, inputs), slopes, strict=True)
    for before, after, slope in pairs:
        assert 0 < np.abs(before - after).max() <= 1.05 * (1 - mean) * slope


def test_operation_that_was_called_with_an_array_is_copied() -> None:
    """Keras makes no config of it."""
    inputs = Input((6,))
    x = layers.Dense(4, "relu", name="first")(inputs)
    x = ops.repeat(x, np.array([1, 2, 3, 1]), axis=-1)
    model = randomise(Model(inputs, layers.Dense(3, name="second")(x)))
    gated = keras_sbp.insert_sbp(model, log_sigma_initializer=-20.0)
    assert gate_map(gated) == {"first_gate": ["first"]}
    assert_equal_outputs(model, gated, 1e-6)


def test_names_structure_and_layers_are_kept() -> None:
    model = network()
    gated = keras_sbp.insert_sbp(model)
    assert gated.name == "net" and not gated.compiled
    assert [x.name for x in gated.inputs] == [x.name for x in model.inputs]
    inputs = random_inputs(model)
    assert gated(inputs).keys() == {"a", "b"}
    gates = {gate.name for gate in find_gates(gated)}
    operations = {layer.name for layer in model.layers if isinstance(layer, keras.layers.Layer)}
    assert operations <= {layer.name for layer in gated.layers} - gates
    for name in operations:
        old, new = model.get_layer(name), gated.get_layer(name)
        assert old.get_config() == new.get_config()
        weights = zip(old.get_weights(), new.get_weights(), strict=True)
        assert all(np.array_equal(a, b) for a, b in weights)


def test_statistics_and_random_state_are_kept() -> None:
    model = network()
    bn, drop = model.get_layer("bn"), model.get_layer("drop")
    model.compile("sgd", "mse")
    inputs = random_inputs(model)
    for _ in range(3):
        model(inputs, training=True)
    gated = keras_sbp.insert_sbp(model)
    assert not np.array_equal(bn.moving_mean, np.zeros(8))
    assert np.array_equal(gated.get_layer("bn").moving_mean, bn.moving_mean)
    x = np.ones((4, 50), "float32")
    copied = gated.get_layer("drop")
    assert np.array_equal(copied(x, training=True), drop(x, training=True))


def test_frozen_layers_stay_frozen_and_policies_are_kept() -> None:
    features = Input((6,))
    x = layers.Dense(8, "relu", name="a", dtype="mixed_bfloat16")(features)
    x = layers.Dense(8, "relu", name="b", dtype="float32", trainable=False)(x)
    gated = keras_sbp.insert_sbp(Model(features, layers.Dense(2)(x)))
    assert gated.get_layer("a").dtype_policy.name == "mixed_bfloat16"
    assert gated.get_layer("a_gate").dtype_policy.name == "mixed_bfloat16"
    assert gated.get_layer("b_gate").dtype_policy.name == "float32"
    assert not gated.get_layer("b").trainable
    assert gated.get_layer("b_gate").trainable


def test_nested_model_is_unfolded_and_shared_weights_stay_shared() -> None:
    inner = keras.Sequential([Input((6,)), layers.Dense(8, "relu", name="inner")], name="nested")
    a, b = Input((6,)), Input((6,))
    x = layers.Concatenate()([inner(a), inner(b)])
    model = randomise(Model([a, b], layers.Dense(3, name="head")(x)))
    gated = keras_sbp.insert_sbp(model, log_sigma_initializer=-20.0)
    assert len(gated.get_layer("inner")._inbound_nodes) == 2
    assert gated.count_params() == model.count_params() + find_gates(gated)[0].count_params()
    assert_equal_outputs(model, gated, 1e-6)


class Block(layers.Layer):
    def __init__(self, units, **options):
        super().__init__(**options)
        self.up = layers.Dense(2 * units, "gelu", name="up")
        self.down = layers.Dense(units, name="down")

    def call(self, x):
        return x + self.down(self.up(x))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="subclassed")
        self.first = layers.Dense(8, name="first")
        self.blocks = [Block(8, name="block_1"), Block(8, name="block_2")]
        self.last = layers.Dense(3, name="last")

    def call(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x)


def test_subclassed_model() -> None:
    model = Subclassed()
    features = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    before = ops.convert_to_numpy(model(features))
    gated = keras_sbp.insert_sbp(model, tie_residual=True, log_sigma_initializer=-20.0)
    assert gate_map(gated) == {
        "first_gate": ["first", "block_1_down", "block_2_down"],
        "block_1_up_gate": ["block_1_up"],
        "block_2_up_gate": ["block_2_up"],
    }
    assert np.abs(before - gated(features)).max() < 1e-6


def test_subclassed_model_that_was_never_called_takes_inputs() -> None:
    model = Subclassed()
    with pytest.raises(ValueError, match="not built"):
        keras_sbp.insert_sbp(model)
    model(np.zeros((1, 6)))
    gated = keras_sbp.insert_sbp(model, inputs=Input((6,), name="features"))
    assert [x.name for x in gated.inputs] == ["features"]


def test_gated_model_trains_saves_and_loads(tmp_path) -> None:
    model = randomise(network())
    gated = keras_sbp.insert_sbp(model, num_samples=32)
    gated.compile("adam", {"a": "mse", "b": "mse"})
    inputs = random_inputs(model)
    targets = {"a": np.zeros((8, 2)), "b": np.zeros((8, 3))}
    history = gated.fit(inputs, targets, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    gated.save(tmp_path / "gated.keras")
    again = keras.models.load_model(tmp_path / "gated.keras")
    assert_equal_outputs(gated, again, 1e-6)
    small, _ = keras_sbp.prune(again)
    assert not find_gates(small)


def test_rule_of_ones_own_need_not_be_registered() -> None:
    class KeepAll(keras_sbp.rules.PosteriorRule):
        def keep(self, posterior):
            return posterior.mean() > -1.0

    rule = KeepAll()
    gated = keras_sbp.insert_sbp(network(), rule=rule)
    assert all(gate.rule is rule for gate in find_gates(gated))
