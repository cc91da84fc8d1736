"""Quantised files: what they need, what is refused, and what verification sees."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

from keras_sbp import export
from keras_sbp.formats.litert_model import LiteRTModel
from tests.formats.architectures import answers, examples, recurrent, two_to_two

pytestmark = pytest.mark.tensorflow


def _images(count: int = 60) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((count, 8, 8, 1)).astype("float32")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quantization": "int4"}, "one of 'float16', .*received 'int4'"),
        ({"quantization": "int8"}, "calibration_data, inputs of the model.*received None"),
        ({"integer_io": True}, "expected quantization='int8' or 'int16x8', received None"),
        ({"quantization": "float16", "integer_io": True}, "received 'float16'"),
    ],
)
def test_arguments_that_do_not_fit(convnet, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        export(convnet, tmp_path / "m.tflite", **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["m", "m.onnx", "m.xml", "m.keras"])
def test_only_litert_files_are_quantised(convnet, tmp_path, name):
    with pytest.raises(ValueError, match=r"is for LiteRT: expected a path that ends in '.tflite'"):
        export(convnet, tmp_path / name, quantization="float16")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.ones((9, 8, 8)), r"'image' float32 \(1, 8, 8, 1\).*float64 of shape \(9, 8, 8\)"),
        (np.full((9, 8, 8, 1), "a"), r"Received: <U1 of shape"),
        (np.full((9, 8, 8, 1), np.nan), "'image' is NaN or infinite in places"),
        (np.ones((0, 8, 8, 1)), "has 0 examples. Expected .* at least one"),
        ({"picture": np.ones((9, 8, 8, 1))}, r"Expected .* 'image' .*Received: 'picture' float64"),
    ],
)
def test_calibration_data_that_do_not_fit(convnet, tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        export(convnet, tmp_path / "m.tflite", quantization="int8", calibration_data=data)
    assert list(tmp_path.iterdir()) == []


def test_calibration_data_of_different_lengths(tmp_path):
    data = {"zeta": np.ones((9, 32)), "alpha": np.ones((8, 32))}
    with pytest.raises(ValueError, match="8 and 9 examples for different inputs"):
        export(two_to_two(), tmp_path / "m.tflite", quantization="int8", calibration_data=data)
    with pytest.raises(ValueError, match=r"its inputs, 'alpha' .*'zeta' .*Received: float64"):
        export(two_to_two(), tmp_path / "m.tflite", calibration_data=np.ones((9, 32)))


def test_too_few_examples_for_a_batch(convnet, tmp_path):
    with pytest.raises(ValueError, match="has 3 examples, expected at least 4, one batch"):
        export(convnet, tmp_path / "m.tflite", batch_size=4, calibration_data=_images(3))


@pytest.mark.parametrize("batch_size", [None, 7])
def test_batch_sizes(convnet, tmp_path, batch_size):
    images = _images(60)
    report = export(
        convnet,
        tmp_path / "m.tflite",
        quantization="int8",
        calibration_data=images,
        batch_size=batch_size,
    )
    assert report.batch_size == batch_size
    assert report.examples == (56 if batch_size else 60)
    received = LiteRTModel(report.path)(images[:7])["output_0"]
    np.testing.assert_allclose(received, convnet(images[:7]), atol=0.05)


@pytest.mark.parametrize(("quantization", "dtype"), [("int8", np.int8), ("int16x8", np.int16)])
def test_integer_inputs_and_outputs(tmp_path, quantization, dtype):
    model = two_to_two()
    inputs = examples(model, 60)
    report = export(
        model,
        tmp_path / "m.tflite",
        quantization=quantization,
        calibration_data=[inputs["alpha"], inputs["zeta"]],
        integer_io=True,
    )
    runtime = LiteRTModel(report.path)
    assert {d for _, d in (*runtime.inputs.values(), *runtime.outputs.values())} == {
        np.dtype(dtype)
    }
    assert not {"QUANTIZE", "DEQUANTIZE"} & {report.ops[0], report.ops[-1]}
    one = {name: value[:1] for name, value in inputs.items()}
    received = runtime(one)
    for name, expected in answers(model, one).items():
        assert received[name].dtype == np.float32
        np.testing.assert_allclose(received[name], expected, atol=0.1 * np.abs(expected).max())


def test_a_gated_model_is_pruned_and_quantised(gated_convnet, tmp_path):
    report = export(
        gated_convnet, tmp_path / "m.tflite", quantization="int8", calibration_data=_images()
    )
    assert report.prune_report.gates[0].units_after == 4
    assert report.to_dict()["quantization"] == "int8"
    assert report.agreement > 0.9
    assert report.tolerance == 0.2


def test_loops_are_refused_where_they_would_crash_the_converter(tmp_path):
    tokens = keras.Input((6,), dtype="int32")
    x = layers.LSTM(4, name="memory")(layers.Embedding(11, 4)(tokens))
    model = keras.Model(tokens, x)
    data = np.random.default_rng(0).integers(0, 11, (20, 6))
    with pytest.raises(ValueError, match=r"loops: found '.*memory.*unroll=True"):
        export(model, tmp_path / "m.tflite", quantization="int8", calibration_data=data)
    assert list(tmp_path.iterdir()) == []
    assert "WHILE" in export(model, tmp_path / "m.tflite", quantization="dynamic_int8").ops


@pytest.mark.remedy("Replace these layers by ones made of other operations, or use quantization=")
def test_what_cannot_be_quantised_is_named(tmp_path):
    sequence = keras.Input((6, 8))
    model = keras.Model(sequence, layers.LayerNormalization(name="norm")(sequence))
    data = np.random.default_rng(0).standard_normal((20, 6, 8))
    with pytest.raises(ValueError, match=r"no integer kernel for NEG \('.*norm"):
        export(model, tmp_path / "m.tflite", quantization="int8", calibration_data=data)
    export(model, tmp_path / "dynamic.tflite", quantization="dynamic_int8")
    other = keras.Model(sequence, layers.BatchNormalization()(sequence))
    export(other, tmp_path / "other.tflite", quantization="int8", calibration_data=data)
    written = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"the converter says: .*op: 'NEG'"):
        export(model, tmp_path / "m.tflite", quantization="int16x8", calibration_data=data)
    model = recurrent()
    data = examples(model, 20)
    with pytest.raises(ValueError, match="the converter says: .*serving_default_tokens"):
        export(model, tmp_path / "m.tflite", quantization="int16x8", calibration_data=data)
    assert sorted(tmp_path.iterdir()) == written


def test_a_float_op_by_luck_is_converted_again(convnet, tmp_path, monkeypatch):
    from keras_sbp.formats import quantization

    luck = iter([(("SPLIT", "a"),), (("SPLIT", "a"), ("NEG", "b"))])
    monkeypatch.setattr(quantization, "float_ops", lambda _: next(luck))
    written = []
    with pytest.raises(ValueError, match=r"SPLIT \('a'\); NEG \('b'\)"):
        quantization.convert_to_integers(
            lambda: written.append(1), tmp_path / "m.tflite", "m", "int8"
        )
    assert len(written) == 2


@pytest.mark.remedy("Calibrate with inputs like those in use")
def test_verification_sees_a_bad_calibration(tmp_path, monkeypatch):
    """Ranges measured on values a hundred times too small cut off all that is larger."""
    from keras_sbp.formats import litert

    model = keras.Sequential([keras.Input((16,)), layers.Dense(32), layers.Dense(5)])
    data = np.random.default_rng(0).standard_normal((60, 16)).astype("float32")
    options = litert.converter_options

    def wrong(quantization):
        small = [{n: 0.01 * v for n, v in batch.items()} for batch in quantization.batches]
        return options(dataclasses.replace(quantization, batches=small))

    monkeypatch.setattr(litert, "converter_options", wrong)
    arguments = {"quantization": "int8", "calibration_data": data}
    with pytest.raises(RuntimeError, match=r"relative error of at most 0.2 .*received 0.*60 exam"):
        export(model, tmp_path / "m.tflite", **arguments)
    assert list(tmp_path.iterdir()) == []
    report = export(model, tmp_path / "m.tflite", verify=False, **arguments)
    assert (report.relative_error, report.agreement, report.examples) == (None, None, 0)
    monkeypatch.undo()
    assert export(model, tmp_path / "n.tflite", **arguments).relative_error < 0.2
