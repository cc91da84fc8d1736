"""Layers that nobody knows are copied whole, whatever their configs say."""

from __future__ import annotations

import threading

import keras
import numpy as np
import pytest
from keras import Input, Sequential, layers, ops

import keras_sbp
from keras_sbp import _keras


class Own(layers.Layer):
    """Has a weight of its own, so it is opaque."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="random_uniform")
        self.built = True

    def call(self, x):
        return self.change(x * self.scale)

    def change(self, x):
        return x


class LeavesOneOut(Own):
    def __init__(self, power=1, **kwargs):
        super().__init__(**kwargs)
        self.power = power

    def change(self, x):
        return x**self.power

    def get_config(self):
        return super().get_config()


class WritesTooMuch(LeavesOneOut):
    def get_config(self):
        return super().get_config() | {"power": self.power, "twice_the_power": 2 * self.power}


class TakesNoName(Own):
    def __init__(self, power):
        super().__init__()
        self.power = power

    def change(self, x):
        return x**self.power


class CannotComeBack(LeavesOneOut):
    @classmethod
    def from_config(cls, config):
        raise TypeError("not today")


class Narrower(Own):
    def __init__(self, units=2, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1], self.units), initializer="random_uniform")

    def call(self, x):
        return x @ self.scale

    def get_config(self):
        return super().get_config() | {"units": self.units + 1}


class OfObject(Own):
    """Keras captures no objects."""

    def __init__(self, given, **kwargs):
        super().__init__(**kwargs)
        self.given = given

    def change(self, x):
        return self.given(x)


class OfSublayers(Own):
    """One of them is frozen, one is called twice."""

    def __init__(self, start, **kwargs):
        super().__init__(**kwargs)
        self.start = start
        self.inner = Sequential([layers.Dense(8, activation="relu"), layers.BatchNormalization()])
        self.frozen = layers.Dense(8, trainable=False)

    def change(self, x):
        return self.frozen(self.frozen(self.inner(x + self.start[0])))


class Noisy(Own):
    def __init__(self, start, **kwargs):
        super().__init__(**kwargs)
        self.start = start
        self.seed_generator = keras.random.SeedGenerator(3)

    def change(self, x):
        return x + keras.random.normal(ops.shape(x), seed=self.seed_generator)


class Holds(LeavesOneOut):
    """A lock cannot be copied, and the config says too little."""

    def __init__(self, power, given=None, **kwargs):
        super().__init__(power, **kwargs)
        self.given = given
        self.lock = threading.Lock()


def squared_sum(x):
    return x**2 + x


def set_later(**kwargs):
    layer = LeavesOneOut(**kwargs)
    layer.power = 2
    return layer


LAYERS = {
    "config leaves an argument out": lambda **k: LeavesOneOut(2, **k),
    "config with what the constructor refuses": lambda **k: WritesTooMuch(2, **k),
    "constructor that takes no name": lambda **k: TakesNoName(2),
    "from_config fails": lambda **k: CannotComeBack(2, **k),
    "config of a layer with other shapes": lambda **k: Narrower(3, **k),
    "attribute set later": set_later,
    "function": lambda **k: OfObject(squared_sum, **k),
    "lambda": lambda **k: OfObject(lambda x: x**2 + x, **k),
    "layer": lambda **k: OfObject(layers.Dense(8, activation="relu"), **k),
    "model": lambda **k: OfObject(Sequential([Input((8,)), layers.Dense(8)]), **k),
    "policy": lambda **k: WritesTooMuch(2, dtype=keras.DTypePolicy("float32"), **k),
    "sublayers": lambda **k: OfSublayers(np.ones(1, "float32"), **k),
    "lock": lambda **k: Holds(2, **k),
}


def model_with(layer):
    model = Sequential(
        [
            Input((6,)),
            layers.Dense(8, activation="relu"),
            layer,
            layers.Dense(8, activation="relu"),
            layers.Dense(3),
        ]
    )
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.2, 1.0, w.shape) for w in model.weights])
    return model


def copy_of(model):
    """The model again: its one gate changes nothing."""
    last_but_one = model.layers[-2].name
    options = {"mu_initializer": 1.0, "log_sigma_initializer": -20.0}
    return keras_sbp.insert_sbp(model, layers=[last_but_one], **options)


def flags(layer):
    return [each.trainable for each in [layer, *_keras.sublayers(layer), *layer.variables]]


@pytest.mark.parametrize("kind", LAYERS)
def test_opaque_layer_is_copied(kind: str) -> None:
    model = model_with(LAYERS[kind](name="odd"))
    x = np.random.default_rng(1).normal(size=(16, 6)).astype("float32")
    old = model.layers[1]
    before, weights = model.predict(x, verbose=0), model.get_weights()
    gated = copy_of(model)
    new = gated.get_layer(old.name)
    assert type(new) is type(old)
    assert flags(new) == flags(old)
    np.testing.assert_allclose(gated.predict(x, verbose=0), before, rtol=1e-6)
    small, report = keras_sbp.prune(gated)
    assert report.max_abs_error <= 1e-5 * np.abs(before).max()
    for copy in (gated, small):
        for variable in copy.variables:
            variable.assign(np.zeros(variable.shape))
        np.testing.assert_array_equal(model.predict(x, verbose=0), before)
    for received, expected in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(received, expected)


@pytest.mark.parametrize("start", [1.0, np.ones(1)], ids=["captured", "deep copy"])
def test_random_state_is_copied_and_not_shared(start) -> None:
    model = model_with(Noisy(start, name="odd"))
    x = np.ones((2, 6), "float32")
    model(x)
    gated = copy_of(model)
    ours, theirs = (each.get_layer("odd").seed_generator for each in (gated, model))
    assert ours is not theirs and ours.state is not theirs.state
    np.testing.assert_array_equal(gated.predict(x), model.predict(x))


def test_copied_layer_is_written_to_files_as_it_was_constructed(tmp_path) -> None:
    gated = copy_of(model_with(WritesTooMuch(2, name="odd")))
    small, _ = keras_sbp.prune(gated)
    small.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(
        tmp_path / "small.keras", custom_objects={"WritesTooMuch": WritesTooMuch}
    )
    x = np.ones((2, 6), "float32")
    np.testing.assert_array_equal(loaded.predict(x), small.predict(x))


class Described(Holds):
    """`Holds` after the advice of the error."""

    def get_config(self):
        return super().get_config() | {"power": self.power, "given": self.given}


@pytest.mark.remedy("Give the class a get_config() that returns all arguments")
def test_layer_that_cannot_be_copied_is_named_with_a_remedy() -> None:
    model = model_with(Holds(2, given=squared_sum, name="odd"))
    with pytest.raises(ValueError, match="'odd' (.|\n)*lock(.|\n)*Give the class a get_config"):
        copy_of(model)
    copy_of(model_with(Described(2, given=squared_sum, name="odd")))


def test_copy_that_would_share_weights_is_refused() -> None:
    odd = OfObject(None, name="odd")
    odd.dense = layers.Dense(8)
    odd.given = lambda x: odd.dense(x)
    model = model_with(odd)
    with pytest.raises(ValueError, match="'odd' .*(.|\n)*would share 'odd'"):
        copy_of(model)


STOCK = {
    "Identity": lambda k: layers.Identity(**k),
    "ELU": lambda k: layers.ELU(0.3, **k),
    "RMSNormalization": lambda k: layers.RMSNormalization(epsilon=0.1, **k),
    "Dense": lambda k: layers.Dense(8, kernel_regularizer=Unnamed(), **k),
    "Dropout": lambda k: layers.Dropout(0.1, **k),
}


class Unnamed(keras.Regularizer):
    """Has no config."""

    def __call__(self, x):
        return ops.sum(x)


@pytest.mark.parametrize("gate", [False, True], ids=["insert", "prune"])
@pytest.mark.parametrize("kind", STOCK)
def test_stock_layer_that_was_given_objects_is_rebuilt(kind: str, gate: bool) -> None:
    model = model_with(STOCK[kind]({"dtype": keras.DTypePolicy("float32")}))
    model = keras_sbp.insert_sbp(model)
    for each in model.layers:
        if isinstance(each, keras_sbp.SBPLayer):
            each.set_posterior([-0.5] * 5 + [-5.0] * 3, [-3.0] * 5 + [3.0] * 3)
    small, _ = keras_sbp.prune(model)
    kinds = [type(layer).__name__ for layer in small.layers]
    assert kind in kinds
    assert small.layers[-1].kernel.shape == (5, 3)


class HalfELU(layers.ELU):
    """Its config has no `alpha`, which the stock layer needs."""

    def __init__(self, strength=1.0, **kwargs):
        super().__init__(alpha=strength / 2, **kwargs)
        self.strength = strength

    def get_config(self):
        return super().get_config() | {"strength": self.strength}


def test_subclass_of_a_stock_layer_without_a_config_keeps_its_arguments() -> None:
    model = keras_sbp.insert_sbp(model_with(HalfELU(0.6)))
    small, _ = keras_sbp.prune(model)
    assert [each.alpha for each in small.layers if type(each) is layers.ELU] == [0.3]


def test_adapted_statistics_are_copied() -> None:
    data = np.random.default_rng(0).normal(5, 3, (64, 6)).astype("float32")
    normalization = layers.Normalization()
    normalization.adapt(data)
    model = Sequential(
        [Input((6,)), normalization, layers.Dense(8), layers.Dense(8), layers.Dense(3)]
    )
    np.testing.assert_allclose(copy_of(model).predict(data), model.predict(data), rtol=1e-5)


@pytest.mark.tensorflow
@pytest.mark.parametrize("data", [["a", "b", "c"], [5, 6, 7]], ids=["strings", "integers"])
def test_adapted_vocabulary_is_copied(data: list) -> None:
    is_text = data[0] == "a"
    lookup = layers.StringLookup() if is_text else layers.IntegerLookup()
    dtype = "string" if is_text else "int64"
    lookup.adapt(data)
    words = Input((3,), dtype=dtype)
    x = layers.Flatten()(layers.Embedding(5, 6)(lookup(words)))
    model = keras.Model(words, layers.Dense(3)(layers.Dense(8)(x)))
    x = ops.convert_to_tensor([data], dtype)
    np.testing.assert_allclose(copy_of(model)(x), model(x), rtol=1e-6)


def test_reasons_why_a_layer_cannot_be_copied_are_not_cut() -> None:
    reason = "nobody makes a second one" + ", which takes words to say" * 20 + ", and here it ends"

    class Unique(Own):
        made = False

        def __init__(self, **kwargs):
            if Unique.made:
                raise TypeError(f"{reason}.")
            super().__init__(**kwargs)
            self.lock = threading.Lock()  # which no deep copy has

    model = model_with(Unique(name="odd"))
    Unique.made = True
    with pytest.raises(ValueError, match="Layer 'odd'.* must be copied") as caught:
        copy_of(model)
    assert f"by the arguments of its constructor: TypeError: {reason}\n" in str(caught.value)
