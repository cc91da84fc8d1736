"""On what an exported file is compared with its model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import Input, Model, Sequential, layers, ops

from keras_sbp import benchmark, export
from keras_sbp.layers import SBPLayer

pytestmark = pytest.mark.tensorflow

TOKENS = np.random.default_rng(0).integers(0, 50, (40, 5))
LABELS = np.zeros(40)


def tokens(length: int | None = 5, *behind: layers.Layer) -> keras.Model:
    """Embedding, the mean over all steps, Dense."""
    inputs = Input((length,), dtype="int32", name="tokens")
    x = layers.Embedding(50, 4)(inputs)
    for layer in behind:
        x = layer(x)
    return Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))


def of_words(*layers_of_words: layers.Layer, shape: tuple = (2,), tables: int = 7) -> keras.Model:
    inputs = Input(shape, dtype="string", name="words")
    x = inputs
    for layer in layers_of_words:
        x = layer(x)
    x = layers.Flatten()(layers.Embedding(tables, 4)(x))
    return Model(inputs, layers.Dense(2)(x))


def lookup() -> keras.Model:
    return of_words(layers.StringLookup(vocabulary=["a", "b", "ç"], name="look"))


def hashed() -> keras.Model:
    return of_words(layers.Hashing(7, name="hash"))


def vectorized() -> keras.Model:
    vectorize = layers.TextVectorization(
        vocabulary=["a", "b"], output_sequence_length=4, name="vectorize"
    )
    return of_words(vectorize, shape=())


def to_words() -> keras.Model:
    inputs = Input((6,), name="x")
    best = ops.argmax(layers.Dense(3)(inputs), axis=-1)
    return Model(
        inputs, layers.StringLookup(vocabulary=["a", "b", "c"], invert=True, name="look")(best)
    )


class Batches(keras.utils.PyDataset):
    """Four batches of ten."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple:
        part = slice(10 * index, 10 * index + 10)
        return TOKENS[part], LABELS[part]


def dataset() -> Any:
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(({"tokens": TOKENS}, LABELS)).batch(10).repeat()


def generator() -> Iterator[tuple]:
    return (Batches()[i] for i in range(4))


FORMS: dict[str, Callable[[], Any]] = {
    "array": lambda: TOKENS,
    "list": lambda: [TOKENS],
    "dict": lambda: {"tokens": TOKENS, "not_of_this_model": LABELS},
    "x_and_y": lambda: (TOKENS, LABELS),
    "tf_data": dataset,
    "py_dataset": Batches,
    "generator": generator,
}


@pytest.mark.parametrize("form", FORMS)
def test_examples_of_the_users_in_every_form(tmp_path: Path, form: str) -> None:
    report = export(tokens(), tmp_path / "m.keras", verify=FORMS[form]())
    assert report.examples >= 40
    [compared] = report.compared
    assert (compared.name, compared.shape[1:], compared.values) == ("tokens", (5,), "given")
    assert report.variation > 0.1
    json.dumps(report.to_dict())


@pytest.mark.parametrize("form", ["x_and_y", "tf_data", "py_dataset", "generator"])
def test_calibration_data_in_every_form(tmp_path: Path, form: str) -> None:
    report = export(
        tokens(), tmp_path / "m.tflite", quantization="int8", calibration_data=FORMS[form]()
    )
    assert report.examples >= 40
    assert [each.values for each in report.compared] == ["given"]


def test_of_a_data_set_at_least_one_batch_is_read(tmp_path: Path) -> None:
    options = {"batch_size": 300, "quantization": "dynamic_int8"}
    report = export(tokens(), tmp_path / "m.tflite", verify=dataset(), **options)
    assert report.examples == 300


def test_a_generator_serves_pruning_and_the_comparison(tmp_path: Path) -> None:
    model = tokens(5, layers.Dense(8), SBPLayer())
    report = export(model, tmp_path / "m.keras", verify=generator())
    assert report.prune_report.compared[0].values == report.compared[0].values == "given"


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
def test_keys_of_a_dict_are_the_inputs_names_or_those_of_the_models_dict(tmp_path: Path) -> None:
    a, b = Input((2,), name="one.a"), Input((2,), name="two")
    model = Model({"z": a, "y": b}, ops.concatenate([2 * a, b]))
    ones, twos = np.ones((4, 2)), np.full((4, 2), 2.0)
    for names in (("z", "y"), ("one.a", "two"), ("one_a", "two")):
        arrays = dict(zip(names, (ones, twos), strict=True))
        export(model, tmp_path / "m.keras", verify=arrays, overwrite=True)
    with pytest.raises(ValueError, match=r"does not fit the model.*'other' float64"):
        export(model, tmp_path / "n.keras", verify={"z": ones, "other": twos})


@pytest.mark.parametrize("name", ["m", "m.tflite", "m.keras"])
def test_words_go_in(tmp_path: Path, name: str) -> None:
    report = export(lookup(), tmp_path / name)
    assert report.compared[0].values == "words of a vocabulary and unknown ones"
    assert report.variation > 0.1
    given = export(
        lookup(), tmp_path / name, verify=np.array([["a", "ç"], ["b", "?"]]), overwrite=True
    )
    assert given.examples == 2
    result = benchmark(tmp_path / name, repeats=5, memory=False)
    assert result.rows[0].latency_us > 0


@pytest.mark.parametrize("model", [hashed, vectorized])
@pytest.mark.parametrize("name", ["m", "m.keras"])
def test_words_are_hashed_and_split(tmp_path: Path, name: str, model: Callable) -> None:
    assert export(model(), tmp_path / name).variation > 0.1


@pytest.mark.parametrize("name", ["m", "m.keras"])
def test_words_come_out(tmp_path: Path, name: str) -> None:
    report = export(to_words(), tmp_path / name)
    assert report.max_abs_error == 0.0
    assert report.variation == 1.0


@pytest.mark.parametrize(
    ("model", "name", "layer"),
    [
        (lookup, "m.onnx", "look"),
        (lookup, "m.xml", "look"),
        (hashed, "m.tflite", "hash"),
        (hashed, "m.onnx", "hash"),
        (hashed, "m.xml", "hash"),
        (vectorized, "m.tflite", "vectorize"),
        (vectorized, "m.xml", "vectorize"),
    ],
)
def test_formats_without_words_name_the_layer(
    tmp_path: Path, model: Callable, name: str, layer: str
) -> None:
    with pytest.raises(ValueError, match=rf"has no operation for .*\(layer '{layer}'\)"):
        export(model(), tmp_path / name)


class Positions(layers.Layer):
    """Adds a row of a table to each step, of which there are 20 at most."""

    def build(self, shape: tuple) -> None:
        self.table = self.add_weight(shape=(20, shape[-1]), initializer="normal")

    def call(self, x: Any) -> Any:
        steps = ops.shape(x)[1]
        if isinstance(steps, int) and steps > 20:
            raise ValueError(f"{steps} steps")
        return x + self.table[:steps]

    def compute_output_shape(self, shape: tuple) -> tuple:
        return shape


def test_unknown_sizes_are_tried_until_one_runs(tmp_path: Path) -> None:
    report = export(tokens(None, Positions()), tmp_path / "m")
    [compared] = report.compared
    assert compared.shape == (7, 16)
    assert compared.values == "integers 0 to 49"


def test_images_of_bytes_take_the_whole_range(tmp_path: Path) -> None:
    model = Sequential(
        [
            Input((4, 4, 1), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(2, 3),
            layers.GlobalMaxPooling2D(),
        ]
    )
    report = export(model, tmp_path / "m.tflite")
    assert report.compared[0].values == "integers 0 to 255"
    assert report.variation > 0.1


def odd() -> keras.Model:
    """Runs where the first input has one step more than the second."""
    first, second = Input((None, 3), name="first"), Input((None, 3), name="second")
    x = layers.Concatenate()([first[:, 1:], second])
    return Model([first, second], layers.GlobalAveragePooling1D()(x))


@pytest.mark.remedy("Pass verify=examples, a batch of inputs as for predict()")
def test_a_model_that_runs_on_nothing_that_is_tried(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="runs on none of the random inputs"):
        export(odd(), tmp_path / "m")
    examples = [np.ones((4, n, 3), "float32") for n in (6, 5)]
    assert export(odd(), tmp_path / "m", verify=examples).examples == 4
    assert export(odd(), tmp_path / "unchecked", verify=False).max_abs_error is None


@pytest.mark.remedy("Pass verify=False to export it without the comparison")
def test_a_model_that_this_machine_cannot_run(tmp_path: Path) -> None:
    class Lacking(layers.Layer):
        def call(self, x: Any) -> Any:
            if not isinstance(x, keras.KerasTensor) and hasattr(x, "numpy"):
                raise RuntimeError("No OpKernel was registered to support Op")
            return x

    model = Sequential([Input((6,)), Lacking()])
    with pytest.raises(RuntimeError, match="cannot run on this machine"):
        export(model, tmp_path / "m")
    export(model, tmp_path / "m", verify=False)


def test_ragged_and_sparse_examples_are_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    for examples in (tf.ragged.constant([[1, 2], [3]]), tf.sparse.from_dense(TOKENS)):
        with pytest.raises(ValueError, match="give a dense array"):
            export(tokens(), tmp_path / "m", verify=examples)


@pytest.mark.remedy("Pass verify=examples, a batch of inputs as for predict()")
@pytest.mark.remedy("Give examples that differ more")
def test_outputs_that_do_not_vary_are_told_of(tmp_path: Path, recwarn: Any) -> None:
    inputs = Input((6,))
    model = Model(inputs, ops.maximum(inputs - 100.0, 0.0))
    with pytest.warns(UserWarning, match="hardly changes .*Pass verify=examples"):
        assert export(model, tmp_path / "m.keras").variation == 0
    with pytest.warns(UserWarning, match="Give examples that differ more"):
        export(model, tmp_path / "n.keras", verify=np.ones((4, 6)))
    recwarn.clear()
    varied = 100 + np.random.default_rng(0).normal(size=(4, 6))
    assert export(model, tmp_path / "o.keras", verify=varied).variation > 0.1
    assert not [each for each in recwarn if "hardly" in str(each.message)]
