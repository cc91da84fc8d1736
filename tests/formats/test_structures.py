"""Exported files agree with Keras for every way a model can take inputs and give outputs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from keras_sbp import export
from keras_sbp.formats.litert_model import LiteRTModel
from keras_sbp.layers import SBPLayer

pytestmark = pytest.mark.tensorflow


def _two_inputs() -> tuple:
    # Alphabetical order is the reverse of theirs, so a mix-up by position shows.
    return keras.Input((3,), name="zeta"), keras.Input((3,), name="alpha")


def _heads(a, b):
    hidden = layers.Concatenate()([layers.Dense(4, activation="relu")(a), 2.0 * b])
    return layers.Dense(2, name="left")(hidden), layers.Dense(2, name="right")(hidden)


def one_to_one() -> keras.Model:
    inputs = keras.Input((6, 6, 2), name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Add()([x, layers.Conv2D(4, 1)(inputs)])
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def lists() -> keras.Model:
    a, b = _two_inputs()
    return keras.Model([a, b], list(_heads(a, b)))


def dicts() -> keras.Model:
    a, b = _two_inputs()
    left, right = _heads(a, b)
    return keras.Model({"zeta": a, "alpha": b}, {"second": left, "first": right})


def awkward_names() -> keras.Model:
    a, b = keras.Input((3,), name="my input.1"), keras.Input((3,), name="2nd")
    return keras.Model([a, b], _heads(a, b)[0])


def input_as_output() -> keras.Model:
    a, b = _two_inputs()
    head = _heads(a, b)[0]
    return keras.Model([a, b], [a, head, head])


def integers() -> keras.Model:
    tokens = keras.Input((5,), dtype="int32", name="tokens")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(7, 4)(tokens))
    return keras.Model(tokens, layers.Dense(2)(x))


def gated_heads() -> keras.Model:
    a, b = _two_inputs()
    gate = SBPLayer(name="gate")
    shared = gate(layers.Dense(6, activation="relu")(layers.Concatenate()([a, b])))
    model = keras.Model([a, b], {"x": layers.Dense(2)(shared), "y": layers.Dense(1)(shared)})
    gate.set_posterior(-0.5, [4.0, -5.0, -5.0, 4.0, -5.0, -5.0])
    return model


BUILDERS = [one_to_one, lists, dicts, awkward_names, input_as_output, integers, gated_heads]


def _name(tensor) -> str:
    """The name a signature has for an input: word characters only."""
    return tensor.name.replace(" ", "_").replace(".", "_")


def _batch(model: keras.Model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    batch = {}
    for tensor in model.inputs:
        shape = (1, *tensor.shape[1:])
        whole = "int" in tensor.dtype
        value = rng.integers(0, 7, shape) if whole else rng.standard_normal(shape)
        batch[_name(tensor)] = value.astype(tensor.dtype)
    return batch


def _expected(model: keras.Model, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    inputs = keras.tree.map_structure(lambda tensor: batch[_name(tensor)], model.input)
    outputs = model(inputs)
    if not isinstance(outputs, dict):
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        outputs = {f"output_{i}": value for i, value in enumerate(outputs)}
    return {name: keras.ops.convert_to_numpy(value) for name, value in outputs.items()}


def _run_saved_model(path: str, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    outputs = loaded.signatures["serving_default"](
        **{name: tf.constant(value) for name, value in batch.items()}
    )
    return {name: value.numpy() for name, value in outputs.items()}


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
@pytest.mark.parametrize("name", ["m.tflite", "saved_model"])
def test_files_agree_with_keras(build, name, tmp_path):
    model = build()
    batch = _batch(model)
    report = export(model, tmp_path / name, verify=False)
    run = _run_saved_model if name == "saved_model" else lambda p, b: LiteRTModel(p)(b)
    received = run(report.path, batch)
    expected = _expected(model, batch)
    assert set(received) == set(expected)
    for key, value in expected.items():
        assert np.ptp(value) > 1e-3 or value.size == 1
        np.testing.assert_allclose(received[key], value, atol=1e-5, rtol=1e-5)
    assert not [op for op in report.ops if op.startswith("Flex")]


@pytest.mark.parametrize("build", [lists, dicts, integers], ids=lambda build: build.__name__)
def test_verification_understands_the_structure(build, tmp_path):
    model = build()
    for name in ("m.tflite", "saved_model"):
        assert export(model, tmp_path / name).max_abs_error <= 1e-5


def test_saved_model_has_a_free_batch_axis_and_no_randomness(gated_convnet, tmp_path):
    import tensorflow as tf

    report = export(gated_convnet, tmp_path / "saved_model")
    assert report.batch_size is None
    serve = tf.saved_model.load(report.path).signatures["serving_default"]
    (spec,) = serve.structured_input_signature[1].values()
    assert spec.shape[0] is None
    kinds = {node.op for node in serve.graph.as_graph_def().node}
    kinds |= {n.op for f in serve.graph.as_graph_def().library.function for n in f.node_def}
    assert not [kind for kind in kinds if "Random" in kind], kinds


def test_free_axes_other_than_the_batch(tmp_path):
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 3, padding="same")(inputs))
    assert export(model, tmp_path / "m.tflite").max_abs_error <= 1e-5


def test_subclassed_model_without_gates(tmp_path):
    class Doubling(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x):
            return 2.0 * self.dense(x)

    model = Doubling()
    model(np.zeros((2, 4), "float32"))
    assert export(model, tmp_path / "m.tflite").ops[0] == "FULLY_CONNECTED"
