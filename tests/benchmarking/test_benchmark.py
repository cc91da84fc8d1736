"""Models measured side by side."""

from __future__ import annotations

import io
import json

import keras
import pytest
from keras import layers
from rich.console import Console

import keras_sbp
from keras_sbp.benchmarking import footprint
from keras_sbp.layers import find_gates

pytestmark = pytest.mark.tensorflow


def network(width: int) -> keras.Model:
    layer = layers.Dense
    return keras.Sequential(
        [keras.Input((64,), name="x"), layer(width), layer(width), layer(2)], name=f"wide_{width}"
    )


def test_every_format_beside_a_keras_model(tmp_path):
    model = network(16)
    names = ["m.tflite", "m.onnx", "m.xml", "m.keras", "m"]
    paths = [keras_sbp.export(model, tmp_path / name, verify=False).path for name in names]
    result = keras_sbp.benchmark([model, *paths], repeats=5, memory=False, batch_size=1)
    formats = ["litert", "litert", "onnx", "openvino", "keras", "saved_model"]
    assert [row.format for row in result.rows] == formats
    assert [row.name for row in result.rows] == ["wide_16", *paths]
    first, again, *_ = result.rows
    assert first.speedup == 1.0
    assert first.size_ratio == again.size_ratio == 1.0
    assert all(row.latency_us > 0 and row.load_ms > 0 for row in result.rows)
    threads = {row.format: row.num_threads for row in result.rows}
    assert threads["onnx"] == threads["litert"] == 1
    assert threads["keras"] is threads["saved_model"] is None


def test_a_larger_model_is_slower_and_takes_more_memory():
    result = keras_sbp.benchmark({"large": network(2048), "small": network(4)}, repeats=10)
    large, small = result.rows
    assert small.speedup > 5
    assert small.speedup_quartiles[0] <= small.speedup <= small.speedup_quartiles[1]
    assert small.size_ratio == large.bytes / small.bytes > 100
    # The weights are 17 MB, and the runtime may hold them a second time.
    assert 15e6 < large.peak_memory < 80e6
    assert small.peak_memory < 8e6


def test_the_table_and_the_values():
    result = keras_sbp.benchmark([network(4), network(4)], repeats=5, memory=False)
    said = io.StringIO()
    result.print(Console(file=said, width=200))
    text = said.getvalue()
    assert "1.00× (1.00–1.00)" in text
    assert "this machine" in text
    assert "1 example per call" in text
    assert "wide_4 (2)" in text
    again = json.loads(json.dumps(result.to_dict()))
    assert again["rows"][0]["name"] == "wide_4"
    assert again["rows"][0]["peak_memory"] is None
    assert again["machine"]


def test_a_gated_model_is_pruned_first():
    gated = keras_sbp.insert_sbp(network(16))
    for gate in find_gates(gated):
        gate.set_posterior(-0.5, [4.0, -5.0] * (gate.units // 2))
    gated, plain = keras_sbp.benchmark([gated, network(16)], repeats=5, memory=False).rows
    assert gated.bytes < plain.bytes


def test_batch_sizes(tmp_path):
    fixed = keras_sbp.export(network(4), tmp_path / "fixed.tflite").path
    free = keras_sbp.export(network(4), tmp_path / "free.tflite", batch_size=None).path
    assert keras_sbp.benchmark([free, network(4)], batch_size=8, repeats=5, memory=False)
    with pytest.raises(ValueError, match=r"'x' of '.*fixed.tflite' has the fixed batch size 1"):
        keras_sbp.benchmark([free, fixed], batch_size=8)


def test_sizes_that_a_file_leaves_free_are_said(tmp_path):
    tokens = keras.Input((None, 4), name="tokens")
    free = keras.Model(tokens, layers.GlobalAveragePooling1D()(tokens))
    path = keras_sbp.export(free, tmp_path / "free").path
    result = keras_sbp.benchmark({"free": path, "fixed": network(4)}, repeats=5, memory=False)
    assert [row.free_axes for row in result.rows] == [32, None]
    said = io.StringIO()
    result.print(Console(file=said, width=200))
    assert "of size 32: axes of inputs that are free in 'free'" in said.getvalue()
    assert result.to_dict()["rows"][0]["free_axes"] == 32


@pytest.mark.parametrize(
    ("models", "arguments", "error", "message"),
    [
        ([], {}, ValueError, "at least one model"),
        (["missing.tflite"], {}, FileNotFoundError, "no model at 'missing.tflite'"),
        (["."], {}, ValueError, "holds no model: expected a SavedModel"),
        ([__file__], {}, ValueError, "Cannot tell the format of the file"),
        ([3], {}, TypeError, "received int"),
        ([__file__], {"repeats": 0}, ValueError, "`repeats` to be a positive integer"),
        ([__file__], {"num_threads": True}, TypeError, "`num_threads` to be a positive"),
    ],
)
def test_what_cannot_be_measured(models, arguments, error, message):
    with pytest.raises(error, match=message):
        keras_sbp.benchmark(models, **arguments)


def test_a_system_that_does_not_tell_its_memory(monkeypatch):
    monkeypatch.setattr(footprint.pathlib.Path, "exists", lambda _: False)
    form = None
    assert footprint.peak_memory("m.tflite", form, batch_size=1, num_threads=1) is None
