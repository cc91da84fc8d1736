"""What converters say reaches no screen; where they fail, it is in the error's notes."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import threading
import warnings

import keras
import pytest
from keras import layers

from keras_sbp import export
from keras_sbp.formats.chatter import kept_back

SCRIPT = """
import logging, sys, keras, keras_sbp
logging.basicConfig(level=logging.INFO)
sys.stderr.write("BEGIN\\n")
sys.stderr.flush()
model = keras.Sequential([keras.Input((6, 6, 2)), keras.layers.Conv2D(3, 3)])
for name in ("m.tflite", "m", "m.onnx", "m.xml"):
    keras_sbp.export(model, sys.argv[1] + "/" + name)
keras_sbp.benchmark(sys.argv[1] + "/m.tflite", repeats=1, memory=False)
bad = keras.Sequential([keras.Input((6,)), keras.layers.Activation(keras.ops.erfinv)])
for name in ("b.tflite", "b.onnx", "b.xml"):
    try:
        keras_sbp.export(bad, sys.argv[1] + "/" + name)
    except Exception as error:
        print(name, len("".join(getattr(error, "__notes__", ()))))
"""


@pytest.mark.stress
@pytest.mark.tensorflow
def test_nothing_but_the_users_own_is_on_the_screen(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path],
        capture_output=True,
        text=True,
        check=True,
        env={k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"},
    )
    assert done.stderr.split("BEGIN\n")[1] == ""
    notes = dict(line.split() for line in done.stdout.splitlines())
    assert set(notes) == {"b.tflite", "b.onnx", "b.xml"}
    assert int(notes["b.onnx"]) > 0, "tf2onnx says much"
    assert all(int(length) < 5000 for length in notes.values())


def _write_everywhere(word: str) -> None:
    print(f"{word} printed")  # noqa: T201
    sys.stderr.write(f"{word} said\n")
    os.write(1, f"{word} on 1\n".encode())
    os.write(2, f"{word} on 2\n".encode())
    logging.getLogger("tf2onnx.tfonnx").error("%s logged", word)


def test_all_ways_to_the_screen_lead_to_the_note(capfd):
    with kept_back():
        _write_everywhere("good")
    with pytest.raises(ValueError, match="no") as caught, kept_back():
        _write_everywhere("bad")
        raise ValueError("no")
    (note,) = caught.value.__notes__
    for way in ("printed", "said", "on 1", "on 2", "logged"):
        assert f"bad {way}" in note
    assert "good" not in note
    assert tuple(capfd.readouterr()) == ("", "")
    _write_everywhere("later")
    out, err = capfd.readouterr()
    assert out.split("\n") == ["later printed", "later on 1", ""]
    assert "later said" in err
    assert "later on 2" in err


def test_a_long_note_is_cut():
    with pytest.raises(ValueError, match="no") as caught, kept_back():
        sys.stderr.write("x" * 100_000 + "the end")
        raise ValueError("no")
    (note,) = caught.value.__notes__
    assert len(note) < 5000
    assert note.endswith("the end")
    assert "96007 characters left out" in note


def test_streams_without_a_descriptor_and_none_at_all(monkeypatch):
    """As in a notebook, and in a program without a console."""
    notebook = io.StringIO()
    monkeypatch.setattr(sys, "stderr", notebook)
    monkeypatch.setattr(sys, "stdout", None)
    with kept_back():
        sys.stderr.write("chatter")
    sys.stderr.write("mine")
    assert notebook.getvalue() == "mine"
    assert sys.stdout is None


def test_other_threads_keep_their_screen_and_threads_take_turns(capfd):
    inside, done = threading.Event(), threading.Event()

    def other():
        inside.wait(10)
        sys.stderr.write("a progress bar\n")
        done.set()

    def convert():
        with kept_back():
            sys.stderr.write("chatter\n")

    threads = [threading.Thread(target=target) for target in (other, convert, convert)]
    with kept_back():
        for thread in threads:
            thread.start()
        inside.set()
        assert done.wait(10)
    for thread in threads:
        thread.join(10)
    sys.stderr.write("afterwards\n")
    assert capfd.readouterr().err == "a progress bar\nafterwards\n"


def test_warnings_about_the_users_own_code_are_passed_on():
    with pytest.warns(UserWarning, match="mine") as given, kept_back():
        warnings.warn("mine", stacklevel=1)
        warnings.warn_explicit("theirs", UserWarning, layers.__file__, 1)
    assert [str(each.message) for each in given] == ["mine"]


@pytest.mark.tensorflow
@pytest.mark.remedy(
    "Replace the layer by ones made of simpler operations, or export another format"
)
def test_a_file_that_its_runtime_does_not_load_is_our_error(tmp_path, monkeypatch):
    from keras_sbp.formats import onnx

    monkeypatch.setattr(onnx, "repair_transposed_convolutions", lambda model: False)
    image = keras.Input((4, 4, 2))
    up = layers.Conv2DTranspose(2, 3, strides=2, output_padding=1, padding="valid", name="up")
    with pytest.raises(RuntimeError, match=r"does not load in its own runtime \(layer 'up'\)"):
        export(keras.Model(image, up(image)), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
    export(keras.Model(image, up(image)), tmp_path / "m.tflite")
    simpler = layers.Conv2D(2, 3)(layers.UpSampling2D()(image))
    export(keras.Model(image, simpler), tmp_path / "m.onnx")
