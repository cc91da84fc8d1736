"""Verification: on which inputs both models are compared, and what is said of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import Input, Model, Sequential, layers, ops

from keras_sbp import prune
from keras_sbp.comparing import drawing
from keras_sbp.comparing.drawing import Slot, draw
from keras_sbp.layers import find_gates
from keras_sbp.pruning.report import PruneReport
from tests.pruning.oracle import drop_units, gate, randomise

X = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")


@keras.saving.register_keras_serializable("test_verify")
class Positions(layers.Layer):
    """Adds a row of a table to each step; a call on more steps than rows fails."""

    def __init__(self, rows: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rows = rows

    def build(self, shape: tuple) -> None:
        self.table = self.add_weight(shape=(self.rows, shape[-1]), initializer="normal")

    def call(self, x: Any) -> Any:
        steps = x.shape[1] if isinstance(x.shape[1], int) else ops.shape(x)[1]
        if isinstance(steps, int) and steps > self.rows:
            raise ValueError(f"{steps} steps for {self.rows} rows")
        return x + self.table[:steps]

    def compute_output_shape(self, shape: tuple) -> tuple:
        return shape

    def get_config(self) -> dict:
        return super().get_config() | {"rows": self.rows}


def gated(inputs: Any, x: Any) -> keras.Model:
    """Dense, gate, Dense behind a tensor; the second unit of the first goes."""
    x = layers.Dense(2)(gate()(layers.Dense(8, activation="relu")(x)))
    model = randomise(Model(inputs, x), drop=0.0)
    drop_units(find_gates(model)[0], [1])
    return model


def steps(*behind: layers.Layer, dtype: str = "int32") -> keras.Model:
    """Tokens, a layer, the mean over all steps, Dense."""
    inputs = Input((None,), dtype=dtype, name="tokens")
    x = layers.Embedding(50, 4)(inputs)
    for layer in behind:
        x = layer(x)
    return gated(inputs, layers.GlobalAveragePooling1D()(x))


def plain() -> keras.Model:
    inputs = Input((6,), name="x")
    return gated(inputs, inputs)


def kinds(report: PruneReport) -> dict[str, str]:
    return {each.name: each.values for each in report.compared}


def test_unknown_sizes_are_tried_until_one_runs() -> None:
    _, report = prune(steps(Positions(20)))
    [tokens] = report.compared
    assert tokens.shape == (7, 16)
    assert tokens.values == "integers 0 to 49"
    assert report.max_abs_error < 1e-5 < report.variation


@pytest.mark.parametrize("multiple", [7, 24])
def test_sizes_that_a_reshape_wants(multiple: int) -> None:
    inputs = Input((None, 3))
    x = layers.Reshape((-1, multiple * 3))(inputs)
    _, report = prune(gated(inputs, layers.GlobalAveragePooling1D()(x)))
    assert report.compared[0].shape[1] % multiple == 0


def test_the_size_of_a_table_is_tried() -> None:
    class Table(Positions):
        def call(self, x: Any) -> Any:
            return x + self.table

    _, report = prune(steps(Table(37)))
    assert report.compared[0].shape == (7, 37)


IMAGES = {
    "uint8": ("uint8", lambda x: layers.Rescaling(1 / 255)(x), "integers 0 to 255"),
    "int8": ("int8", lambda x: ops.cast(x, "float32"), "integers -128 to 127"),
    "int32": ("int32", lambda x: layers.Rescaling(1 / 255)(x), "integers 0 to 255"),
    "bool": ("bool", lambda x: ops.cast(x, "float32"), "True or False"),
    "float16": ("float16", lambda x: x, "standard normal"),
    "bfloat16": ("bfloat16", lambda x: x, "standard normal"),
    "float64": ("float64", lambda x: x, "standard normal"),
}


@pytest.mark.parametrize("case", IMAGES)
def test_range_of_a_dtype(case: str) -> None:
    dtype, first, values = IMAGES[case]
    inputs = Input((4, 4, 3), dtype=dtype, name="image")
    _, report = prune(gated(inputs, layers.Flatten()(first(inputs))))
    assert kinds(report) == {"image": values}
    assert report.variation > 0.1


@pytest.mark.parametrize("layer", [layers.Rescaling(1 / 127.5, -1.0), "normalization"])
def test_images_have_the_range_that_a_layer_expects(layer: Any) -> None:
    if layer == "normalization":
        layer = layers.Normalization(mean=[100.0, 120.0, 90.0], variance=[900.0, 400.0, 100.0])
    inputs = Input((4, 4, 3))
    _, report = prune(gated(inputs, layers.Flatten()(layer(inputs))))
    assert report.variation > 0.1


INDICES = {
    "embedding": (lambda: layers.Embedding(30, 4), "int32", "integers 0 to 29"),
    "floats": (lambda: layers.Embedding(30, 4), "float32", "integers 0 to 29"),
    "one_hot": (lambda: lambda x: ops.one_hot(x, 12), "int32", "integers 0 to 11"),
    "encoding": (
        lambda: layers.CategoryEncoding(7, output_mode="one_hot"),
        "int64",
        "integers 0 to 6",
    ),
}


@pytest.mark.parametrize("case", INDICES)
def test_indices_lie_in_the_table(case: str) -> None:
    make, dtype, values = INDICES[case]
    inputs = Input((5,), dtype=dtype, name="index")
    _, report = prune(gated(inputs, layers.Flatten()(make()(inputs))))
    assert kinds(report) == {"index": values}
    assert report.variation > 0.1


def test_one_number_for_each_example() -> None:
    inputs = Input((), name="age")
    _, report = prune(gated(inputs, ops.expand_dims(inputs, -1)))
    assert report.compared[0].shape == (7,)


@pytest.mark.tensorflow
@pytest.mark.parametrize("case", ["lookup", "closed lookup", "hashing", "text", "integers", "bins"])
def test_preprocessing_layers(case: str) -> None:
    text = layers.TextVectorization(output_sequence_length=5, vocabulary=["good", "bad", "film"])
    make, dtype, shape, size, values = {
        "lookup": (
            lambda: layers.StringLookup(vocabulary=["a", "b"]),
            "string",
            (3,),
            3,
            "words of a vocabulary and unknown ones",
        ),
        "closed lookup": (
            lambda: layers.StringLookup(vocabulary=["a", "b"], num_oov_indices=0),
            "string",
            (3,),
            2,
            "words of a vocabulary",
        ),
        "hashing": (lambda: layers.Hashing(9), "string", (3,), 9, "words of a vocabulary"),
        "text": (
            lambda: text,
            "string",
            (),
            9,
            "sentences of words of a vocabulary and unknown ones",
        ),
        "integers": (
            lambda: layers.IntegerLookup(vocabulary=[12, 36, 1000]),
            "int64",
            (3,),
            4,
            "integers of a vocabulary",
        ),
        "bins": (
            lambda: layers.Discretization(bin_boundaries=[10.0, 20.0]),
            "float32",
            (3,),
            3,
            "between 4 and 26",
        ),
    }[case]
    inputs = Input(shape, dtype=dtype, name="x")
    x = layers.Embedding(size, 4)(make()(inputs))
    _, report = prune(gated(inputs, layers.GlobalAveragePooling1D()(x)))
    assert kinds(report) == {"x": values.replace("between 4 and 26", report.compared[0].values)}
    assert report.variation > 0.1
    assert report.to_dict()["compared"][0]["dtype"] == dtype


def test_several_inputs_in_a_dict() -> None:
    inputs = {"image": Input((4,), name="image"), "id": Input((2,), dtype="int32", name="id")}
    x = layers.Flatten()(layers.Embedding(9, 3)(inputs["id"]))
    model = gated(inputs, layers.Concatenate()([inputs["image"], x]))
    _, report = prune(model)
    assert kinds(report) == {"id": "integers 0 to 8", "image": "standard normal"}
    _, report = prune(model, verify={"image": X[:, :4], "id": np.ones((40, 2), "int32")})
    assert kinds(report) == {"id": "given", "image": "given"}


class Examples(keras.utils.PyDataset):
    """Two batches, with labels."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple:
        return X[index * 4 :][:4], np.zeros(4)


GIVEN: dict[str, tuple[Callable[[], Any], int]] = {
    "array": (lambda: X, 32),
    "tensor": (lambda: ops.convert_to_tensor(X[:5]), 5),
    "nested lists": (lambda: X[:3].tolist(), 3),
    "list": (lambda: [X[:7]], 7),
    "dict": (lambda: {"x": X[:7]}, 7),
    "as for fit": (lambda: (X[:7], np.zeros(7)), 7),
    "with weights": (lambda: (X[:7], np.zeros(7), np.ones(7)), 7),
    "PyDataset": (Examples, 8),
    "generator": (lambda: ((X[i : i + 10], None) for i in range(0, 40, 10)), 32),
}


@pytest.mark.parametrize("form", GIVEN)
def test_examples_in_every_form(form: str) -> None:
    make, count = GIVEN[form]
    _, report = prune(plain(), verify=make())
    [x] = report.compared
    assert (x.name, x.shape, x.values) == ("x", (count, 6), "given")
    assert report.max_abs_error < 1e-5 < report.variation


@pytest.mark.tensorflow
def test_examples_from_tf_data() -> None:
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((X, np.zeros(40))).batch(10)
    _, report = prune(plain(), verify=data)
    assert report.compared[0].shape == (32, 6)


@pytest.mark.tensorflow
def test_ragged_and_sparse_examples_are_refused() -> None:
    import tensorflow as tf

    for given in (tf.sparse.from_dense(X), tf.ragged.constant([[1.0], [2.0, 3.0]])):
        with pytest.raises(ValueError, match="give a dense array"):
            prune(plain(), verify=given)


@pytest.mark.parametrize("wrong", [X[:, :3], {"y": X[:, :3]}, [X, X], None, "x.npz", X[:0]])
def test_examples_that_do_not_fit(wrong: Any) -> None:
    with pytest.raises(ValueError, match="`verify`"):
        prune(plain(), verify=wrong)


def test_examples_that_fit_are_compared_when_rules_insert_the_gates() -> None:
    import keras_sbp

    model = Sequential([Input((6,)), layers.Dense(8, "relu"), layers.Dense(2)])
    _, report = prune(model, keras_sbp.L2Norm(keep=0.5), verify=X)
    assert report.compared[0].values == "given"


def odd() -> keras.Model:
    """Takes none of the sizes that are tried: its two inputs differ in length by one."""
    first, second = Input((None, 3), name="first"), Input((None, 3), name="second")
    x = layers.Concatenate()([first[:, 1:], second])
    return gated([first, second], layers.GlobalAveragePooling1D()(x))


def test_a_model_that_runs_on_nothing_that_is_tried() -> None:
    with pytest.raises(RuntimeError, match="runs on none of the random inputs") as caught:
        prune(odd())
    assert "(7, 64, 3), (7, 32, 3)" in str(caught.value)
    assert "'second' (float32" in str(caught.value)
    assert "The last error was" in caught.value.__notes__[0]
    rng = np.random.default_rng(0)
    examples = [rng.normal(size=(4, n, 3)).astype("float32") for n in (6, 5)]
    _, report = prune(odd(), verify=examples)
    assert [each.shape for each in report.compared] == [(4, 6, 3), (4, 5, 3)]
    assert report.variation > 0.01
    _, report = prune(odd(), verify=False)
    assert (report.max_abs_error, report.compared, report.variation) == (None, (), None)


def test_examples_that_the_model_does_not_run_on() -> None:
    with pytest.raises(RuntimeError, match="does not run on the examples"):
        prune(steps(Positions(5)), verify=np.ones((2, 9), "int32"))
    _, report = prune(steps(Positions(5)), verify=np.arange(10).reshape(2, 5))
    assert report.max_abs_error < 1e-5
    assert prune(steps(Positions(5)), verify=False)[1].compared == ()


@pytest.mark.remedy("Pass verify=examples, a batch of inputs as for predict()")
@pytest.mark.remedy("Give examples that differ more")
def test_outputs_that_do_not_vary_are_told_of() -> None:
    inputs = Input((6,))
    model = gated(inputs, ops.maximum(inputs - 100.0, 0.0))
    with pytest.warns(UserWarning, match="hardly change"):
        _, report = prune(model)
    assert report.variation == 0
    with pytest.warns(UserWarning, match="Give examples that differ more"):
        prune(model, verify=np.ones((4, 6)))
    _, report = prune(model, verify=X + 100)
    assert report.variation > 0.1


@pytest.mark.remedy("Give a new generator if it was used up before")
def test_a_generator_that_was_used_up() -> None:
    used = (X for _ in range(0))
    with pytest.raises(ValueError, match="holds no batch"):
        prune(plain(), verify=used)
    assert prune(plain(), verify=(X for _ in range(1)))[1].compared[0].shape == (32, 6)


@pytest.mark.remedy("Remove these examples")
def test_examples_that_are_not_finite() -> None:
    bad = X.copy()
    bad[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        prune(plain(), verify=bad)
    assert prune(plain(), verify=np.delete(bad, 3, axis=0))[1].max_abs_error < 1e-5


def test_inputs_of_a_logarithm() -> None:
    inputs = Input((6,), name="x")
    _, report = prune(gated(inputs, ops.log(inputs)))
    assert kinds(report) == {"x": "between 0 and 1"}


def test_a_fixed_batch_of_one_is_compared_twice() -> None:
    inputs = Input(batch_shape=(1, 6))
    _, report = prune(gated(inputs, inputs))
    assert report.compared[0].shape == (1, 6)
    assert report.variation > 0.1


def test_big_inputs_get_few_examples_and_small_sizes() -> None:
    image = [Slot("image", (None, 512, 512, 3), "float32")]
    [first] = list(drawing.batches(image, macs=10**11))[:1]
    assert first.examples == drawing.FEWEST_EXAMPLES
    volume = [Slot("volume", (None, None, None, None, 1), "float32")]
    assert next(drawing.batches(volume)).arrays[0].shape == (7, 16, 16, 16, 1)
    assert draw(image, 2, 64).arrays[0].shape == (2, 512, 512, 3)


LACKING = """
import keras
from keras import layers
import keras_sbp

first = {"data_format": "channels_first"}
cases = [
    ((4, 8, 8), 1, layers.Conv2D(4, 3, **first)),
    ((4, 6, 6), 1, layers.Conv2DTranspose(3, 3, strides=2, **first)),
    ((4, 5, 5, 5), 1, layers.Conv3DTranspose(3, 2, strides=2, **first)),
    ((8, 8, 4), -1, layers.Conv2DTranspose(3, 3, dilation_rate=2)),
    ((6, 6, 6, 4), -1, layers.Conv3DTranspose(3, 2, dilation_rate=2)),
]
for shape, axis, layer in cases:
    gate = keras_sbp.SBPLayer(axis=axis)
    model = keras.Sequential([keras.Input(shape), layers.ReLU(), gate, layer])
    gate.set_posterior(-0.5, [-3.0, 3.0, -3.0, -3.0])
    try:
        _, report = keras_sbp.prune(model)
        print("runs", report.max_abs_error < 1e-5)
    except RuntimeError as error:
        assert "cannot run on this machine" in str(error), error
        assert "only supports" in error.__notes__[0] or "not yet" in error.__notes__[0]
        said = []
        small, report = keras_sbp.prune(model, verify=False)
        report.summary(print_fn=said.append)
        assert small.count_params() < model.count_params()
        assert "nothing was compared" in said[0], said
        print("told")
"""


@pytest.mark.stress
@pytest.mark.tensorflow
@pytest.mark.remedy("Pass verify=False, and the report says that nothing was compared; or run this")
@pytest.mark.parametrize(("backend", "said"), [("tensorflow", "told"), ("jax", "runs True")])
def test_a_machine_that_lacks_an_operation(backend: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LACKING],
        env=os.environ | {"KERAS_BACKEND": backend, "TF_ENABLE_ONEDNN_OPTS": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == 5 * [said], done.stderr
