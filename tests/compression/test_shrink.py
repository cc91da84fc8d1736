"""shrink(): the network without its frozen units trains on as the whole one would have."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import Input, Model, layers, regularizers

import keras_sbp
from keras_sbp import SBPLayer
from keras_sbp.layers import find_gates

TENSORFLOW = keras.backend.backend() == "tensorflow"
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(16, 8, 8, 3)).astype("float32")
LABELS = RNG.integers(0, 3, 16)
# So little noise that a step is the same to rounding, however it is drawn.
QUIET = {"num_samples": 64, "log_sigma_initializer": -19.0, "learning_rate_multiplier": 1.0}


# JAX computes in float32 unless it is told otherwise before anything else, and PyTorch has no
# gradient of a convolution in float64 on every processor.
PRECISION, CLOSE = ("float64", 1e-6) if TENSORFLOW else ("float32", 1e-2)

pytestmark = pytest.mark.filterwarnings("ignore:Frozen units stay until prune")


@pytest.fixture(autouse=True)
def precise():
    before = keras.config.floatx()
    keras.config.set_floatx(PRECISION)
    keras.config.set_dtype_policy(PRECISION)
    yield
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(before)


def network(**options) -> Model:
    """A residual network with gates on a stream, inside branches and on a dense layer."""
    keras.utils.set_random_seed(1)
    x = inputs = Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem", **options)(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = stream = layers.ReLU()(x)
    for name in ("a", "b"):
        x = layers.Conv2D(6, 3, padding="same", activation="relu", name=f"{name}_in")(stream)
        x = SBPLayer(name=f"{name}_gate", **QUIET)(x)
        x = layers.Conv2D(8, 3, padding="same", name=f"{name}_out")(x)
        stream = layers.Add()([stream, x])
    x = layers.GlobalAveragePooling2D()(stream)
    x = layers.Dense(10, activation="relu", name="dense")(x)
    x = SBPLayer(name="dense_gate", **QUIET)(x)
    return Model(inputs, layers.Dense(3, name="logits")(x))


def compiled(model: Model, optimizer, **options) -> Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, **options)
    return model


def step(model: Model, times: int) -> list[float]:
    return [float(model.train_on_batch(IMAGES, LABELS)) for _ in range(times)]


def outputs_of(model: Model, x: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(x))


def assert_same_steps(small: Model, model: Model) -> None:
    """Five steps of models of 6 features and 3 classes."""
    x = IMAGES[:, 0, :2].reshape(16, 6)
    for _ in range(5):
        for each in (small, model):
            each.train_on_batch(x, LABELS)
    outputs = [outputs_of(m, x) for m in (small, model)]
    np.testing.assert_allclose(*outputs, atol=CLOSE * np.abs(outputs[1]).max())


def freeze(model: Model, **dropped) -> None:
    for name, units in dropped.items():
        gate = model.get_layer(name)
        gate.freeze(~np.isin(np.arange(gate.units), units))


DROPPED = {"a_gate": [0, 2, 5], "b_gate": range(6), "dense_gate": [1, 2, 3, 8]}
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.01),
    "momentum": lambda: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
    "adam": lambda: keras.optimizers.Adam(
        keras.optimizers.schedules.ExponentialDecay(0.01, 3, 0.8), amsgrad=True
    ),
    "adamw, ema": lambda: keras.optimizers.AdamW(
        0.01, weight_decay=0.1, use_ema=True, ema_overwrite_frequency=4
    ),
    "lion": lambda: keras.optimizers.Lion(1e-3),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.01), dynamic_growth_steps=3
    ),
    "accumulation, clipped": lambda: keras.optimizers.Adam(
        0.01, gradient_accumulation_steps=3, global_clipnorm=0.05
    ),
    "nadam": lambda: keras.optimizers.Nadam(0.01),
    "rmsprop": lambda: keras.optimizers.RMSprop(1e-3, momentum=0.5, centered=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_next_ten_steps_are_those_of_the_frozen_model(name: str) -> None:
    model = compiled(network(), OPTIMIZERS[name]())
    step(model, 3)
    freeze(model, **DROPPED)
    small = keras_sbp.shrink(model)
    assert small.get_layer("a_in").filters == 3 and small.get_layer("dense").units == 6
    # The bias of b_out trains, without an input; and a norm that is clipped sees the whole branch.
    assert small.get_layer("b_in").filters == (6 if "clipped" in name else 1)
    assert small.count_params() < (0.9 if "clipped" in name else 0.6) * model.count_params()
    assert int(small.optimizer.iterations) == int(model.optimizer.iterations)
    losses = step(model, 10)
    np.testing.assert_allclose(step(small, 10), losses, rtol=CLOSE)
    outputs = [outputs_of(m, IMAGES) for m in (small, model)]
    np.testing.assert_allclose(*outputs, atol=CLOSE * np.abs(outputs[1]).max())
    kept = [0, 4, 5, 6, 7, 9]
    for part in ("kernel", "bias"):
        ours, theirs = (
            keras.ops.convert_to_numpy(getattr(m.get_layer("dense"), part)) for m in (small, model)
        )
        np.testing.assert_allclose(ours, theirs[..., kept], atol=CLOSE * np.abs(theirs).max())


def test_stepping_on_does_not_touch_the_given_model() -> None:
    model = compiled(network(), "adam")
    step(model, 1)
    freeze(model, **DROPPED)
    before = model.get_weights()
    step(keras_sbp.shrink(model), 2)
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_shrinking_again_and_pruning_at_last() -> None:
    model = compiled(network(), "adam")
    freeze(model, a_gate=[0])
    small = keras_sbp.shrink(model)
    step(small, 2)
    freeze(small, a_gate=[1, 2], dense_gate=[4])
    smaller = keras_sbp.shrink(small)
    assert [gate.units for gate in find_gates(smaller)] == [3, 6, 9]
    assert all(gate.alive.all() for gate in find_gates(smaller))
    step(smaller, 1)
    pruned, report = keras_sbp.prune(smaller, keras_sbp.rules.OnlyFrozen())
    np.testing.assert_allclose(
        outputs_of(pruned, IMAGES), outputs_of(smaller, IMAGES), rtol=1e-3, atol=1e-4
    )


def test_a_dead_branch_whose_gates_are_in_the_norm_that_is_clipped() -> None:
    """The branch goes as far as nothing of it is in the norm, and no further."""
    keras.utils.set_random_seed(3)
    inputs = Input((6,))
    x = inputs
    for name in ("first", "second"):
        x = SBPLayer(name=name, **QUIET)(layers.Dense(5, activation="relu")(x))
    branch = SBPLayer(axis=None, name="branch", **QUIET)(layers.Dense(6)(x))
    model = Model(inputs, layers.Dense(3)(layers.Add()([inputs, branch])))
    compiled(model, keras.optimizers.SGD(0.1, global_clipnorm=0.01), run_eagerly=True)
    freeze(model, first=[0, 3], second=range(5), branch=[0])
    small = keras_sbp.shrink(model)
    assert small.count_params() < model.count_params()
    assert_same_steps(small, model)


def dead_together(**options) -> Model:
    """A branch of which two gates kill a half each."""
    keras.utils.set_random_seed(3)
    inputs = Input((6,))
    branch = layers.Dense(6, name="seen", **options)(inputs)
    for name in ("one", "another"):
        branch = SBPLayer(name=name, **QUIET)(branch)
    model = Model(inputs, layers.Dense(3)(layers.Add()([inputs, branch])))
    freeze(model, one=[0, 1, 2], another=[3, 4, 5])
    return compiled(model, keras.optimizers.SGD(0.1), run_eagerly=True)


def test_two_gates_that_kill_a_branch_together() -> None:
    model = dead_together()
    small = keras_sbp.shrink(model)
    assert "seen" not in {layer.name for layer in small.layers}
    assert_same_steps(small, model)


def test_what_the_loss_sees_is_not_cut_off() -> None:
    model = dead_together(activity_regularizer="l2")
    with pytest.raises(ValueError, match="would cut off 'seen'"):
        keras_sbp.shrink(model)
    model = dead_together(activity_regularizer="l2")
    freeze(model, one=range(6))
    assert_same_steps(keras_sbp.shrink(model), model)


def test_a_model_that_is_not_compiled() -> None:
    model = network()
    freeze(model, **DROPPED)
    assert not keras_sbp.shrink(model).compiled


def test_weight_decay_that_the_user_spares() -> None:
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model = compiled(network(), optimizer)
    step(model, 2)
    freeze(model, **DROPPED)
    small = keras_sbp.shrink(model)
    np.testing.assert_allclose(step(small, 5), step(model, 5), rtol=CLOSE)


class Counts(Model):
    """Trains in its own way."""

    def train_step(self, *arguments):
        self.steps = getattr(self, "steps", 0) + 1
        return super().train_step(*arguments)


def test_the_models_own_train_step_trains_on() -> None:
    plain = network()
    model = compiled(Counts(inputs=plain.inputs, outputs=plain.outputs), "adam")
    freeze(model, **DROPPED)
    small = keras_sbp.shrink(model)
    assert type(small) is Counts and small.count_params() < model.count_params()
    step(small, 1)
    assert small.steps


def around(make, **dense_options) -> Model:
    """A gate on 4 units, one of them frozen, then whatever `make` makes, and a dense layer."""
    keras.utils.set_random_seed(2)
    inputs = Input((6,))
    x = layers.Dense(4, name="before", **dense_options)(inputs)
    x = SBPLayer(name="gate", **QUIET)(x)
    model = Model(inputs, layers.Dense(3, name="after")(make(x)))
    freeze(model, gate=[2])
    return model


@keras.saving.register_keras_serializable(package="tests")
class Norm(regularizers.Regularizer):
    """Of the kernel as a whole."""

    def __call__(self, x):
        return keras.ops.norm(x)


STAYS = {
    "its activity regularizer": lambda: around(lambda x: x, activity_regularizer="l2"),
    "something else of a 0 in training": lambda: around(layers.GaussianNoise(0.1)),
    "MaxNorm looks at": lambda: around(lambda x: layers.Dense(5, kernel_constraint="max_norm")(x)),
    "Norm looks at": lambda: around(lambda x: layers.Dense(4, kernel_regularizer=Norm())(x)),
    "no handler for OfTheUser": lambda: around(OfTheUser()),
    "another constant of the 0": lambda: around(layers.BatchNormalization()),
}


class OfTheUser(layers.Layer):
    """Opaque."""

    def call(self, x, training=None):
        return keras.ops.cumsum(x, axis=-1) if training else x


@pytest.mark.parametrize("why", STAYS)
def test_what_training_still_depends_on_stays_with_a_reason(why: str) -> None:
    model = STAYS[why]()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    with pytest.warns(UserWarning, match=f"1 of 4 of 'gate'.*{why}"):
        small = keras_sbp.shrink(model)
    assert small.get_layer("before").units == 4
    if "something else" not in why:
        x = IMAGES[:, 0, :2].reshape(16, 6)
        ours, theirs = (
            [float(m.train_on_batch(x, LABELS)) for _ in range(5)] for m in (small, model)
        )
        np.testing.assert_allclose(ours, theirs, rtol=CLOSE)


def normalised(x):
    layer = layers.Normalization(name="fixed")
    layer.adapt(np.linspace(0.0, 3.0, 12).reshape(3, 4))
    return layers.Dense(4)(layer(x))


KEEPS = {
    "constants that do not train": lambda x: layers.Dense(3)(normalised(layers.Dense(4)(x))),
    "dropout": lambda x: layers.Dropout(0.0)(x),
    "activation": lambda x: layers.Activation("tanh")(x),
    "l2": lambda x: layers.Dense(5, kernel_regularizer="l2", kernel_constraint="non_neg")(x),
    "attention": lambda x: layers.Flatten()(
        layers.MultiHeadAttention(2, 3)(*[layers.Reshape((1, 4))(x)] * 2)
    ),
    "recurrent": lambda x: layers.GRU(5)(layers.Reshape((1, 4))(x)),
    "normalisation of what is left": lambda x: layers.LayerNormalization()(layers.Dense(5)(x)),
}


@pytest.mark.parametrize("name", KEEPS)
def test_what_lets_units_go(name: str) -> None:
    model = around(KEEPS[name])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    small = keras_sbp.shrink(model)
    assert small.get_layer("before").units == 3
    assert_same_steps(small, model)


def test_a_kernel_that_is_0_now_is_not_so_for_good() -> None:
    model = around(lambda x: x)
    model.get_layer("after").set_weights([np.zeros((4, 3)), np.zeros(3)])
    assert keras_sbp.shrink(model).get_layer("before").units == 3


@pytest.mark.remedy("Insert them with keras_sbp.insert_sbp, or make a plain network small with")
def test_a_model_without_gates_is_refused() -> None:
    plain = keras.Sequential([Input((6,)), layers.Dense(4), layers.Dense(3)])
    with pytest.raises(ValueError, match="Expected a model with SBPLayers"):
        keras_sbp.shrink(plain)
    assert find_gates(keras_sbp.shrink(keras_sbp.insert_sbp(plain)))
    assert keras_sbp.prune(plain, keras_sbp.L2Norm(0.5))[0].layers[1].units == 2


@pytest.mark.remedy("Compile the model with one of these")
def test_an_optimizer_that_looks_at_whole_weights_is_refused() -> None:
    model = around(lambda x: x)
    model.compile(keras.optimizers.Lamb(0.01), "mse")
    with pytest.raises(ValueError, match="Received: Lamb"):
        keras_sbp.shrink(model)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    assert keras_sbp.shrink(model).get_layer("before").units == 3


@pytest.mark.remedy("Call shrink after a number of steps that gradient_accumulation_steps divides")
def test_half_an_update_that_is_to_be_clipped_is_refused() -> None:
    model = around(lambda x: x)
    clipping = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2, clipnorm=1.0)
    model.compile(clipping, "mse")
    model.train_on_batch(np.ones((4, 6)), np.ones((4, 3)))
    with pytest.raises(ValueError, match="between the 2 steps"):
        keras_sbp.shrink(model)
    model.train_on_batch(np.ones((4, 6)), np.ones((4, 3)))
    assert keras_sbp.shrink(model).get_layer("before").units == 3
