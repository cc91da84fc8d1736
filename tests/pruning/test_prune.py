"""What prune() leaves: widths, folded gates, names, reasons."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import Input, Model, Sequential, layers

from keras_sbp import SNRThreshold
from keras_sbp.layers import find_gates
from keras_sbp.pruning import prune
from tests.pruning.oracle import assert_same_function, drop_units, gate, randomise
from tools.walks import walk, walks


@pytest.fixture(autouse=True)
def _plain_names() -> None:
    keras.backend.clear_session()  # so that unnamed layers are called 'dense', 'input_layer', ...


def pruned(model: keras.Model, drops: dict[int, list[int]]) -> tuple[keras.Model, dict[str, int]]:
    """Drops units of the gates by their number; returns the model and widths by layer name."""
    randomise(model, drop=0.0)
    gates = find_gates(model)
    for number, units in drops.items():
        drop_units(gates[number], units)
    small, report = assert_same_function(model)
    return small, {row.name: row.units_after for row in report.layers}


def kinds(model: keras.Model) -> list[str]:
    return [type(operation).__name__ for operation in model.operations]


def test_gates_fold_into_the_layers_before_them() -> None:
    model = Sequential(
        [
            Input((9, 9, 2)),
            layers.Conv2D(8, 3, activation="relu", name="conv"),
            layers.MaxPooling2D(),
            gate(),
            layers.Flatten(),
            layers.Dense(6, name="dense"),
            gate(),
            layers.Dense(3, name="last"),
        ]
    )
    small, widths = pruned(model, {0: [0, 3, 7], 1: [2]})
    assert (widths["conv"], widths["dense"], widths["last"]) == (5, 5, 3)
    assert kinds(small) == ["InputLayer", "Conv2D", "MaxPooling2D", "Flatten", "Dense", "Dense"]


def test_gates_behind_other_activations_fold_into_the_layers_after_them() -> None:
    model = Sequential(
        [
            Input((9, 9, 2)),
            layers.Conv2D(8, 3, activation="gelu"),
            gate(),
            layers.DepthwiseConv2D(3, activation="sigmoid"),
            gate(),
            layers.Flatten(),
            layers.Dense(6, activation="tanh"),
            gate(),
            layers.Dense(3),
        ]
    )
    small, _ = pruned(model, {0: [1], 1: [1, 2], 2: [0]})
    assert kinds(small) == [
        *("InputLayer", "Conv2D", "DepthwiseConv2D", "Flatten", "Dense", "Dense"),
    ]


def test_input_features_are_dropped_behind_the_input() -> None:
    model = Sequential(
        [Input((30,)), gate(), layers.Dense(60, name="dense"), layers.Dense(2, name="last")]
    )
    small, widths = pruned(model, {0: list(range(10, 30))})
    assert widths["input_layer"] == 10
    assert small.input_shape == (None, 30)
    assert small.get_layer("dense").kernel.shape == (10, 60)
    assert kinds(small) == ["InputLayer", "Take", "Dense", "Dense"]


def test_partly_removed_blocks_of_flattened_features_become_one_take() -> None:
    model = Sequential(
        [
            Input((5, 5, 1)),
            layers.Conv2D(6, 2, activation="relu", name="conv"),
            layers.Flatten(),
            gate(),
            layers.Dense(128, name="dense"),
            layers.Dense(3, name="last"),
        ]
    )
    features = np.arange(96).reshape(16, 6)
    dropped = [*features[:, 4], *features[:, 5], *features[:8, 0], *features[:8, 1]]
    small, widths = pruned(model, {0: [int(f) for f in dropped]})
    assert widths["conv"] == 4  # two channels have no feature left
    assert small.get_layer("dense").kernel.shape == (96 - len(dropped), 128)
    assert kinds(small) == ["InputLayer", "Conv2D", "Flatten", "Take", "Dense", "Dense"]


def test_constant_goes_into_the_bias() -> None:
    model = Sequential(
        [
            Input((4,)),
            layers.Dense(8, name="first"),
            gate(),
            layers.BatchNormalization(name="norm"),
            layers.Activation("sigmoid"),
            layers.Dense(3, use_bias=False, name="second"),
        ]
    )
    small, widths = pruned(model, {0: [0, 1, 2]})
    assert (widths["first"], widths["norm"]) == (5, 5)
    assert small.get_layer("second").use_bias


def test_chain_behind_one_gate_is_pruned_from_both_ends() -> None:
    image = Input((8, 8, 4))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(24, 1, name="expand")(image)))
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = gate()(layers.ReLU()(layers.BatchNormalization()(x)))
    x = layers.Add()([image, layers.Conv2D(4, 1, name="project")(x)])
    model = Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    _, widths = pruned(model, {0: list(range(16))})
    assert (widths["expand"], widths["depthwise"], widths["project"]) == (8, 8, 4)


def test_vanished_branch_leaves_no_trace() -> None:
    image = Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="stem")(image)
    y = layers.Conv2D(6, 3, padding="same", activation="relu", name="branch_1")(x)
    y = gate()(layers.Conv2D(6, 3, padding="same", name="branch_2")(y))
    x = layers.Add()([x, y])
    model = Model(image, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(x)))
    small, widths = pruned(model, {0: list(range(6))})
    assert widths == {"input_layer": 3, "stem": 6, "branch_1": 0, "branch_2": 0, "head": 2}
    assert kinds(small) == ["InputLayer", "Conv2D", "GlobalAveragePooling2D", "Dense"]


def test_unit_that_nothing_reads_goes_without_a_gate() -> None:
    model = Sequential([Input((4,)), layers.Dense(8, name="first"), layers.Dense(3, name="last")])
    randomise(model)
    kernel = keras.ops.convert_to_numpy(model.get_layer("last").kernel).copy()
    kernel[[1, 5]] = 0.0
    model.get_layer("last").kernel.assign(kernel)
    small, _ = assert_same_function(model)
    assert small.get_layer("first").units == 6


def test_several_inputs_one_of_them_unread() -> None:
    left, right = Input((4,), name="left"), Input((5,), name="right")
    x = gate()(layers.Dense(6, activation="relu", name="x")(left))
    y = gate()(layers.Dense(6, activation="relu", name="y")(right))
    model = Model([left, right], layers.Dense(2)(layers.Concatenate()([x, y])))
    small, widths = pruned(model, {1: list(range(6))})
    assert (widths["x"], widths["y"], widths["right"]) == (6, 0, 0)
    assert [tensor.name for tensor in small.inputs] == ["left", "right"]


def test_shared_layers_stay_shared() -> None:
    features = Input((6,))
    shared = layers.Dense(8, activation="relu", name="shared")
    first, second = gate(), gate()
    x, y = layers.Dense(5)(features), layers.Dense(5)(features)
    sum_ = layers.Add()([first(shared(x)), second(shared(y))])
    model = Model(features, layers.Dense(2)(sum_))
    small, widths = pruned(model, {0: [0, 1, 2], 1: [1, 2, 3]})
    assert widths["shared"] == 6  # units 1 and 2 are dropped by both
    assert len([layer for layer in small.layers if layer.name.startswith("shared")]) == 1


def test_names_trainable_flags_and_policies_are_kept() -> None:
    model = Sequential(
        [
            Input((6,), name="features"),
            layers.Dense(8, name="frozen", trainable=False, dtype="mixed_bfloat16"),
            gate(),
            layers.Dense(3, name="head"),
        ],
        name="mine",
    )
    drop_units(find_gates(model)[0], [0])
    small, _ = prune(model)
    assert small.name == "mine"
    assert [layer.name for layer in small.layers] == ["features", "frozen", "head"]
    assert not small.get_layer("frozen").trainable and small.get_layer("head").trainable
    assert small.get_layer("frozen").dtype_policy.name == "mixed_bfloat16"


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    image = Input((8, 8, 3))
    block = Sequential([layers.Conv2D(8, 3, activation="relu"), layers.BatchNormalization()])
    x = gate()(block(image))
    x = gate()(layers.Dense(8, activation="gelu")(layers.Flatten()(x)))
    model = Model(image, layers.Dense(3, dtype="float32")(x))
    randomise(model)
    small, report = prune(model)
    assert report.params_after < report.params_before
    assert small.compute_dtype == model.compute_dtype


def test_user_model_is_not_changed() -> None:
    model = randomise(Sequential([Input((6,)), layers.Dense(8), gate(), layers.Dense(3)]))
    before = [weight.copy() for weight in model.get_weights()]
    config = model.get_config()
    model.compile("sgd", "mse")
    prune(model)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert model.get_config() == config
    assert model.compiled


def test_rule_overrules_the_gates() -> None:
    model = randomise(Sequential([Input((6,)), layers.Dense(8), gate(), layers.Dense(3)]), drop=0)
    own, report = prune(model)
    assert report.gates[0].units_after == 8
    snr = find_gates(model)[0].snr()
    small, report = prune(model, SNRThreshold(float(np.sort(snr)[5])))
    assert report.gates[0].units_after == 3
    assert small.layers[1].units == 3


def test_evaluate_of_the_gated_model_is_what_the_small_one_scores() -> None:
    model = randomise(
        Sequential([Input((6,)), layers.Dense(8, activation="relu"), gate(), layers.Dense(3)])
    )
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 6)), rng.integers(0, 3, 64)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    small, _ = prune(model)
    for each in (model, small):
        each.compile("sgd", loss, metrics=["accuracy"])
    gated_scores = model.evaluate(x, y, verbose=0)
    assert gated_scores == pytest.approx(small.evaluate(x, y, verbose=0), rel=1e-5)


def test_small_model_trains_on() -> None:
    model = randomise(
        Sequential(
            [Input((9, 9, 2)), layers.Conv2D(8, 3), layers.BatchNormalization(), layers.ReLU()]
            + [gate(), layers.Flatten(), layers.Dense(3)]
        )
    )
    small, _ = prune(model)
    small.compile("adam", "mse")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 9, 9, 2)), rng.normal(size=(64, 3))
    losses = small.fit(x, y, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.stress
def test_file_loads_where_this_package_is_not_installed(tmp_path) -> None:
    features = Input((30,))
    x = gate()(layers.Dense(100, activation="gelu")(gate()(features)))
    y = layers.Add()([x, layers.Dense(100)(x)])  # the gate cannot fold into an Add
    model = randomise(Model(features, layers.Dense(3)(y)))
    small, _ = prune(model)
    assert "Take" in kinds(small) and "Rescaling" in kinds(small)
    small.save(tmp_path / "small.keras")
    inputs = np.random.default_rng(0).normal(size=(4, 30)).astype("float32")
    np.save(tmp_path / "x.npy", inputs)
    np.save(tmp_path / "y.npy", keras.ops.convert_to_numpy(small(inputs)))
    script = (
        "import sys; sys.modules['keras_sbp'] = None\n"
        "import keras, numpy as np\n"
        "model = keras.models.load_model('small.keras')\n"
        "y = keras.ops.convert_to_numpy(model(np.load('x.npy')))\n"
        "assert np.array_equal(y, np.load('y.npy')), np.abs(y - np.load('y.npy')).max()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_subclass_that_changes_nothing_is_replaced_by_its_stock_layer() -> None:
    class Wide(layers.Dense):
        def __init__(self):
            super().__init__(16, activation="relu", name="wide")

    model = Sequential([Input((6,)), Wide(), gate(), layers.Dense(3)])
    small, widths = pruned(model, {0: [0, 1]})
    assert widths["wide"] == 14
    assert type(small.get_layer("wide")) is layers.Dense


def test_subclass_that_overrides_is_opaque() -> None:
    @keras.saving.register_keras_serializable()
    class Doubled(layers.Dense):
        def call(self, inputs):
            return 2 * super().call(inputs)

    model = Sequential([Input((6,)), Doubled(8), gate(), layers.Dense(3, name="last")])
    drop_units(find_gates(model)[0], [0, 1])
    small, report = prune(model)
    row = next(row for row in report.layers if row.name == "doubled")
    assert row.units_after == 8
    assert row.reason.startswith("opaque: no handler for Doubled")
    assert report.max_abs_error < 1e-5


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda x: layers.Dense(8, activation=lambda t: t * 2, name="odd")(x), None),
        (
            lambda x: layers.Dense(8, activation=layers.PReLU(), name="odd")(x),
            "its activation is a layer",
        ),
        (
            lambda x: layers.BatchNormalization(name="odd")(x, training=True),
            "it is called with training=True",
        ),
        (lambda x: layers.Normalization(axis=None)(x), None),
    ],
)
def test_what_is_not_understood_is_kept_with_a_reason(make, reason) -> None:
    features = Input((6,))
    x = gate()(layers.Dense(8, activation="relu", name="first")(features))
    model = Model(features, layers.Dense(3)(make(x)))
    randomise(model, drop=0.0)
    drop_units(find_gates(model)[0], [0, 1])
    _, report = prune(model)
    rows = {row.name: row for row in report.layers}
    if reason:
        assert rows["odd"].reason == f"opaque: {reason}"
        assert rows["first"].units_after == 8
        assert "2 removed units kept for 'odd'" in rows["first"].reason


def test_operator_on_tensors_is_told_from_the_layer_of_that_name() -> None:
    features = Input((6,))
    x = gate()(layers.Dense(6, name="first")(features))
    model = Model(features, layers.Dense(3)(x + features))
    randomise(model, drop=0.0)
    drop_units(find_gates(model)[0], [0])
    _, report = prune(model)
    assert "the operation Add" in report.layers[1].reason


def test_one_opaque_call_makes_a_shared_layer_opaque() -> None:
    left, right = Input((7, 5)), Input((7, 5))
    shared = layers.Dense(6, activation="relu", name="shared")
    x = gate()(shared(layers.Masking()(left)))
    y = gate()(shared(right))
    # Pooling leaves out the masked steps, so the first call has to stay as it is.
    pooled = [layers.GlobalAveragePooling1D()(layers.Dense(3)(each)) for each in (x, y)]
    model = randomise(Model([left, right], layers.Add()(pooled)), drop=0.0)
    for each in find_gates(model):
        drop_units(each, [0, 1])
    _, report = prune(model)
    rows = {row.name: row for row in report.layers}
    assert rows["shared"].units_after == 6
    assert "mask" in rows["shared"].reason


def test_own_activation_function_in_an_opaque_call() -> None:
    steps = Input((7, 5))
    x = layers.Dense(6, activation=lambda t: t * 2)(layers.Masking()(steps))
    model = Model(steps, layers.Dense(3)(layers.GlobalAveragePooling1D()(gate()(x))))
    prune(randomise(model))


def test_gate_over_a_tensor_of_unknown_sizes() -> None:
    sequence = Input((None,))
    model = Model(sequence, gate(axis=())(layers.Rescaling(2.0)(sequence)))
    model.layers[-1].set_posterior(-0.5, -3.0)
    small, report = prune(model)
    assert report.max_abs_error < 1e-5
    assert kinds(small) == ["InputLayer", "Rescaling", "Rescaling"]


def test_masked_tensors_keep_their_mask() -> None:
    steps = Input((7, 5))
    x = layers.Masking()(steps)
    x = gate()(layers.Dense(6, activation="relu")(x))
    model = Model(steps, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    randomise(model, drop=0.0)
    drop_units(find_gates(model)[0], [1, 2])
    small, report = prune(model)
    data = np.random.default_rng(0).normal(size=(4, 7, 5)).astype("float32")
    data[:, 4:] = 0.0
    difference = keras.ops.convert_to_numpy(model(data) - small(data))
    assert np.abs(difference).max() < 1e-5
    reasons = {row.name: row.reason for row in report.layers}
    assert any("mask" in reason for reason in reasons.values())


def test_gate_inside_an_opaque_layer_is_kept_and_said() -> None:
    @keras.saving.register_keras_serializable()
    class Block(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense, self.gate = layers.Dense(8), gate()

        def build(self, shape):
            self.dense.build(shape)
            self.gate.build((None, 8))

        def call(self, x, training=None):
            return self.gate(2 * self.dense(x) if training else self.dense(x))

    model = Sequential([Input((6,)), Block(name="block"), layers.Dense(3)])
    drop_units(find_gates(model)[0], [0])
    with pytest.warns(UserWarning, match="block"):
        small, report = prune(model)
    assert len(find_gates(small)) == 1
    assert report.max_abs_error < 1e-5


@pytest.mark.remedy("Build the network from Functional or Sequential models")
def test_gate_in_a_functional_model_inside_is_pruned() -> None:
    block = Sequential([Input((6,)), layers.Dense(8), gate(), layers.Dense(4)], name="block")
    model = randomise(Sequential([Input((6,)), block, layers.Dense(3)]), drop=0.0)
    drop_units(find_gates(model)[0], [0])
    small, report = prune(model)
    assert not find_gates(small)
    assert small.layers[-2].kernel.shape == (7, 4)


def test_channels_first_without_convolution() -> None:
    image = Input((6, 5, 4))
    x = layers.BatchNormalization(axis=1)(image)
    x = gate(axis=1)(layers.ReLU()(x))
    x = layers.ZeroPadding2D(1, data_format="channels_first")(x)
    x = layers.Flatten(data_format="channels_first")(x)
    model = Model(image, layers.Dense(50)(x))
    randomise(model, drop=0.0)
    drop_units(find_gates(model)[0], [1, 2, 3])
    small, report = assert_same_function(model)
    assert report.macs_after == report.macs_before // 2


@pytest.mark.kernel("channels_first")
def test_channels_first_convolution() -> None:
    # Keras on TensorFlow adds a bias to the last axis where that is as wide as there are filters.
    image = Input((3, 13, 13))
    x = layers.Conv2D(8, 3, activation="relu", data_format="channels_first", name="conv")(image)
    x = gate(axis=1)(x)
    x = layers.SeparableConv2D(6, 3, data_format="channels_first", activation="gelu")(x)
    x = gate(axis=1)(x)
    x = layers.DepthwiseConv2D(3, data_format="channels_first")(x)
    x = layers.MaxPooling2D(data_format="channels_first")(x)
    x = layers.GlobalAveragePooling2D(data_format="channels_first")(x)
    model = Model(image, layers.Dense(3)(x))
    randomise(model, drop=0.0)
    drop_units(find_gates(model)[0], [0, 1])
    drop_units(find_gates(model)[1], [5])
    small, report = assert_same_function(model)
    assert [row.units_after for row in report.layers] == [3, 6, 5, 5, 3]
    assert small.get_layer("conv").kernel.shape == (3, 3, 3, 6)


def test_input_that_is_also_an_output() -> None:
    features = Input((6,))
    x = gate()(layers.Dense(8, activation="relu", name="wide")(features))
    model = Model(features, [features, layers.Dense(3)(x)])
    _, widths = pruned(model, {0: [0, 1]})
    assert widths["wide"] == 6


def test_deep_dense_connections_take_linear_time() -> None:
    features = Input((4,))
    x = layers.Dense(4)(features)
    for _ in range(40):
        y = gate()(layers.Dense(2, activation="relu")(x))
        x = layers.Concatenate()([x, y])
    model = Model(features, layers.Dense(3)(layers.LayerNormalization()(x)))
    randomise(model)
    _, report = prune(model)  # ends, where following every path would not
    assert any("LayerNormalization" in row.reason for row in report.layers)


@pytest.mark.parametrize("name", ["prune(gated)", "prune(plain, L1Norm)"])
def test_traces_and_analyses_the_model_once(name: str) -> None:
    seen = walk(walks()[f"`{name}`"])
    assert seen.times("trace.py", "trace") == 1
    assert seen.times("analysis.py", "analyse") == 1
