"""A format of the user's own: one class and one registration reach everything that takes one."""

from __future__ import annotations

import importlib
import json
import sys

import keras
import numpy as np
import pytest

import keras_sbp
from keras_sbp.cli import main
from keras_sbp.formats import Format, KerasFile, Quantizing, register_format
from keras_sbp.formats.base import FORMATS

MODULE = '''
import gzip
import pathlib
import tempfile

from keras_sbp.formats import Format, KerasFile, register_format


@register_format
class Zipped(Format):
    """A `.keras` file, compressed once more."""

    name, title, suffix = "gzip", "GZip", ".gz"
    any_backend = True
    threads = False

    def convert(self, model, path, specs, quantization):
        plain = path.with_suffix(".keras")
        model.save(plain)
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()

    def load(self, path, num_threads):
        with tempfile.TemporaryDirectory() as folder:
            plain = pathlib.Path(folder, "plain.keras")
            plain.write_bytes(gzip.decompress(path.read_bytes()))
            return KerasFile().load(plain, num_threads)

    def ops(self, path):
        return ("DEFLATE",)
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with `zipped.py`, which registers a format, and `m.keras`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "zipped.py").write_text(MODULE)
    importlib.invalidate_caches()
    network().save("m.keras")
    yield tmp_path
    FORMATS.pop("gzip", None)
    sys.modules.pop("zipped", None)


def network() -> keras.Model:
    return keras.Sequential(
        [keras.Input((6,), name="x"), keras.layers.Dense(4), keras.layers.Dense(2)]
    )


def test_export_and_benchmark(folder):
    importlib.import_module("zipped")
    gate = keras_sbp.SBPLayer()
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(4), gate, keras.layers.Dense(2)]
    )
    gate.set_posterior(0.0, [4.0, -5.0, -5.0, 4.0])
    report = keras_sbp.export(model, "small.gz")
    assert (report.format, report.ops, report.batch_size) == ("gzip", ("DEFLATE",), None)
    assert report.max_abs_error <= 1e-6
    assert report.prune_report.gates[0].units_after == 2
    assert report.bytes == (folder / "small.gz").stat().st_size
    assert keras_sbp.export(model, "large.GZ", format="gzip", verify=np.eye(6)).examples == 6
    keras_sbp.export(network(), "m.gz")
    small, plain = keras_sbp.benchmark(["small.gz", "m.keras"], repeats=5).rows
    assert (small.format, small.num_threads, plain.format) == ("gzip", None, "keras")
    assert small.latency_us > 0
    assert small.peak_memory is None or small.peak_memory > 0


def test_the_command_line(folder, capsys):
    command = "export m.keras -o m.gz --import zipped --json"
    assert main(command.split()) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "gzip"
    assert main(["export", "m.keras", "-o", "n.gz", "--format", "gzip", "--import", "zipped"]) == 0
    assert "Operations: DEFLATE (1)" in capsys.readouterr().out
    command = "benchmark m.keras m.gz --repeats 5 --no-memory --import zipped --json"
    assert main(command.split()) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["format"] for row in rows] == ["keras", "gzip"]


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("m.zip", {}, r"the suffix .*'.gz' \(GZip\).*received '.zip'"),
        ("m", {"format": "zip"}, "expected .*'gzip' or None, received 'zip'"),
        ("m.zip", {"format": "gzip"}, "A file for GZip must end in '.gz'"),
        ("m.gz", {"format": "saved_model"}, "SavedModel is a folder"),
        ("m.gz", {"quantization": "float16"}, "is for LiteRT.*received the format 'gzip'"),
    ],
)
def test_messages_list_it(folder, capsys, path, options, message):
    importlib.import_module("zipped")
    with pytest.raises(ValueError, match=message):
        keras_sbp.export(network(), path, **options)
    flags = [word for name, value in options.items() for word in (f"--{name}", value)]
    assert main(["export", "m.keras", "-o", path, *flags]) == 2
    (folder / "m.zip").touch()
    with pytest.raises(ValueError, match=r"Cannot tell the format .*'.gz' \(GZip\)"):
        keras_sbp.benchmark("m.zip")


@pytest.mark.remedy("Register it in a module that can be imported, or pass memory=False")
def test_a_format_that_a_new_process_does_not_find(folder, monkeypatch):
    zipped = importlib.import_module("zipped").Zipped
    path = keras_sbp.export(network(), "m.gz").path
    with monkeypatch.context() as patch:
        patch.setattr(zipped, "__module__", "__main__")
        if sys.platform == "linux":
            with pytest.raises(RuntimeError, match="no format 'gzip'. Register it in a module"):
                keras_sbp.benchmark(path, repeats=5)
        keras_sbp.benchmark(path, repeats=5, memory=False)
    keras_sbp.benchmark(path, repeats=5)


@pytest.mark.remedy("Choose another name or suffix")
def test_names_and_suffixes_are_not_shared(folder):
    class Other(KerasFile):
        name = "other"

    before = dict(FORMATS)
    with pytest.raises(ValueError, match=r"'other' with the suffix '.keras' .*Choose another"):
        register_format(Other)
    assert before == FORMATS
    Other.suffix = ".other"
    assert register_format(register_format(Other)) is Other, "as a cell that is run again"
    assert FORMATS.pop("other").suffix == ".other"


@pytest.mark.remedy("Define what is missing in the class")
def test_half_a_format(folder):
    class Half(Format):
        name, title = "half", "Half"

        def load(self, path, num_threads):
            raise NotImplementedError

    with pytest.raises(TypeError, match="none of its own for suffix, convert. Define"):
        register_format(Half)

    class Whole(Half):
        suffix = ".half"

        def convert(self, model, path, specs, quantization):
            raise NotImplementedError

    register_format(Whole)
    assert isinstance(FORMATS.pop("half"), Whole)
    with pytest.raises(TypeError, match="takes a subclass of keras_sbp.formats.Format, received 3"):
        register_format(3)


def test_a_format_that_quantises_is_told_how(folder, monkeypatch):
    zipped = importlib.import_module("zipped").Zipped
    told = []

    class Told(zipped):
        name, suffix = "told", ".told"
        quantizations = ("int8",)

        def convert(self, model, path, specs, quantization):
            told.append(quantization)
            super().convert(model, path, specs, quantization)

    monkeypatch.setitem(FORMATS, "told", Told())
    options = {"quantization": "int8", "calibration_data": np.ones((5, 6)), "batch_size": 5}
    report = keras_sbp.export(network(), "m.told", **options)
    assert report.quantization == "int8"
    [quantizing] = told
    assert isinstance(quantizing, Quantizing)
    assert (quantizing.name, quantizing.integer, quantizing.integer_io) == ("int8", "int8", False)
    assert quantizing.batches[0]["x"].shape == (5, 6)
    with pytest.raises(ValueError, match="is for LiteRT and GZip: .* '.tflite' or '.told'"):
        keras_sbp.export(network(), "m.keras", quantization="int8")
