"""Which paths and arguments are taken, which are refused, and what refusing leaves behind."""

from __future__ import annotations

import sys

import keras
import pytest

from keras_sbp import export

pytestmark = pytest.mark.tensorflow


def _snapshot(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("m.h5", {}, r"expected the suffix .*'.keras'.*'.tflite'.*received '.h5'"),
        ("v1.2", {}, "format='saved_model'"),
        ("m", {"format": "litert"}, "must end in '.tflite'"),
        ("m.bin", {"format": "litert"}, "must end in '.tflite'"),
        ("m.tflite", {"format": "saved_model"}, "is a folder"),
        ("m.tflite", {"format": "tflite"}, "expected .*'litert', .* or None"),
        ("m.tflite", {"batch_size": 0}, "'auto', None or a positive integer. Received: .*=0"),
        ("m.tflite", {"batch_size": 2.0}, "positive integer. Received: batch_size=2.0"),
        ("m.tflite", {"batch_size": True}, "positive integer. Received: batch_size=True"),
    ],
)
def test_wrong_arguments(convnet, tmp_path, name, arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        export(convnet, tmp_path / name, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_dotted_folder_with_explicit_format(convnet, tmp_path):
    report = export(convnet, tmp_path / "v1.2", format="saved_model")
    assert (tmp_path / "v1.2" / "saved_model.pb").exists()
    assert report.format == "saved_model"


def test_unbuilt_model(tmp_path):
    with pytest.raises(ValueError, match="'nameless' is not built"):
        export(keras.Sequential([keras.layers.Dense(2)], name="nameless"), tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["m.tflite", "saved_model"])
def test_existing_target_needs_overwrite(convnet, tmp_path, name):
    export(convnet, tmp_path / name)
    before = _snapshot(tmp_path)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        export(convnet, tmp_path / name)
    assert _snapshot(tmp_path) == before
    convnet.layers[-1].kernel.assign(convnet.layers[-1].kernel * 2.0)
    export(convnet, tmp_path / name, overwrite=True)
    after = _snapshot(tmp_path)
    assert after != before
    assert set(after) == set(before), "something else was left behind"


def test_overwrite_spares_folders_that_hold_other_things(convnet, tmp_path):
    export(convnet, tmp_path / "mine")
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("keep me too")
    before = _snapshot(tmp_path)
    for name in ("mine", "photos"):
        with pytest.raises(FileExistsError, match="nothing but a SavedModel"):
            export(convnet, tmp_path / name, overwrite=True)
    assert _snapshot(tmp_path) == before


def test_kinds_are_not_swapped(convnet, tmp_path):
    (tmp_path / "file").write_text("a file")
    (tmp_path / "folder.tflite").mkdir()
    with pytest.raises(FileExistsError, match="is a file, and this format is a folder"):
        export(convnet, tmp_path / "file", overwrite=True)
    with pytest.raises(FileExistsError, match="is a folder, and this format is a file"):
        export(convnet, tmp_path / "folder.tflite", overwrite=True)


@pytest.mark.parametrize("name", ["m.tflite", "saved_model"])
def test_unwritable_places(convnet, tmp_path, name):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(NotADirectoryError, match="is a file, expected a folder"):
        export(convnet, tmp_path / "file" / name)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        export(convnet, tmp_path / "missing" / name)
    assert _snapshot(tmp_path) == {"file": b"a file"}


def test_no_permission(convnet, tmp_path, monkeypatch):
    # The tests may run as root, who may write everywhere, so the system's answer is replaced.
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(PermissionError, match="no permission to write into"):
        export(convnet, tmp_path / "m.tflite")


def test_a_link_is_written_through(convnet, tmp_path):
    export(convnet, tmp_path / "real.tflite")
    (tmp_path / "link.tflite").symlink_to(tmp_path / "real.tflite")
    before = (tmp_path / "real.tflite").read_bytes()
    convnet.layers[-1].bias.assign([1.0, 2.0, 3.0])
    export(convnet, tmp_path / "link.tflite", overwrite=True)
    assert (tmp_path / "link.tflite").is_symlink()
    assert (tmp_path / "real.tflite").read_bytes() != before


@pytest.mark.parametrize("name", ["m.tflite", "saved_model"])
def test_a_failure_while_writing_leaves_the_old_file(convnet, tmp_path, monkeypatch, name):
    export(convnet, tmp_path / name)
    before = _snapshot(tmp_path)

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        export(convnet, tmp_path / name, overwrite=True)
    assert _snapshot(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_without_tensorflow_the_extra_is_named(convnet, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-sbp\[tf\]'"):
        export(convnet, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("log_sigma", "message"), [(4.0, "KL was too strong"), (None, "NaN")])
def test_a_model_that_cannot_be_pruned_leaves_nothing(gated_convnet, tmp_path, log_sigma, message):
    gate = gated_convnet.get_layer("gate_dense")
    if log_sigma is None:
        gate.mu.assign(float("nan") * gate.mu)
    else:
        gate.set_posterior(0.0, log_sigma)
    with pytest.raises(ValueError, match=message):
        export(gated_convnet, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []
