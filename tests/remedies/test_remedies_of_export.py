"""What export() and benchmark() say to do, done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import Input, Sequential, layers

import keras_sbp
from tests.remedies.case import case, check_remedy

pytestmark = pytest.mark.tensorflow

X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")


class Exports:
    """Exports small networks into a folder.

    Args:
        folder: where to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str = "m.keras", *behind: layers.Layer, **options: Any) -> None:
        self.model(Sequential([Input((6,)), layers.Dense(4), *behind]), name, **options)

    def model(self, model: keras.Model, name: str = "m.keras", **options: Any) -> None:
        report = keras_sbp.export(model, self.folder / name, **options)
        assert Path(report.path).exists()

    def twice(self, **options: Any) -> None:
        self(**options, overwrite=True)
        self(**options)

    def into(self, name: str, make: Callable[[Path], Any], then: str) -> None:
        """Makes something with a name, and exports to another."""
        path = self.folder / name
        if not path.exists():
            make(path)
        self(then, overwrite=True)

    def calibrated(self, data: np.ndarray, batch_size: int = 4) -> None:
        options = {"quantization": "int8", "batch_size": batch_size, "overwrite": True}
        self("m.tflite", calibration_data=data, **options)


@pytest.fixture
def exports(tmp_path: Path) -> Exports:
    return Exports(tmp_path)


def called(model: keras.Model, *inputs: Any) -> keras.Model:
    model(*inputs)
    return model


class OfTwo(keras.Model):
    """Takes two tensors in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, inputs: list) -> Any:
        return self.dense(inputs[0]) + inputs[1]


def wrapped(model: keras.Model) -> keras.Model:
    inputs = [Input((6,)), Input((2,))]
    return keras.Model(inputs, model(inputs))


def recurrent(unroll: bool) -> keras.Model:
    return Sequential([Input((5, 3)), layers.GRU(4, unroll=unroll), layers.Dense(2)])


def not_finite(mend: bool = False) -> keras.Model:
    model = Sequential([Input((6,)), layers.Dense(4)])
    if not mend:
        model.layers[0].bias.assign(np.full(4, np.nan))
    return model


STRANGE = layers.Activation(keras.ops.erfinv)
STEPS = np.random.default_rng(1).normal(size=(8, 5, 3)).astype("float32")


@pytest.mark.parametrize(
    ("words", "wrong", "right"),
    [
        case(
            "Pass overwrite=True to replace it, or choose another path",
            lambda to: to.twice(),
            lambda to: [to(overwrite=True), to("other.keras")],
        ),
        case(
            "Choose another path",
            lambda to: to.into("m.keras", Path.mkdir, "m.keras"),
            lambda to: to("other.keras"),
        ),
        case(
            "Create it first",
            lambda to: to("sub/m.keras"),
            lambda to: to.into("sub", Path.mkdir, "sub/m.keras"),
        ),
        case(
            "Choose another path, or remove the folder yourself",
            lambda to: to.into("m", lambda path: (path / "mine").mkdir(parents=True), "m"),
            lambda to: to("n"),
        ),
        case(
            "Change the path, or choose another format",
            lambda to: to("m.tflite", format="keras"),
            lambda to: [to("m.keras", format="keras"), to("m.tflite", format="litert")],
        ),
        case(
            "Call it once on data, or give it an `Input`, before exporting it",
            lambda to: to.model(Sequential([layers.Dense(4)])),
            lambda to: [
                to.model(called(Sequential([layers.Dense(4)]), X)),
                to.model(Sequential([Input((6,)), layers.Dense(4)]), "other.keras"),
            ],
        ),
        case(
            "Wrap it: keras.Model(inputs, model(inputs))",
            lambda to: to.model(called(OfTwo(), [X, X[:, :2]]), "m.tflite"),
            lambda to: to.model(wrapped(OfTwo()), "m.tflite"),
        ),
        case(
            "Fix the batch size in the model's own Input instead",
            lambda to: to(batch_size=2),
            lambda to: to.model(Sequential([Input((6,), batch_size=2), layers.Dense(4)])),
        ),
        case(
            "Replace these layers by ones made of simpler operations, or export a SavedModel",
            lambda to: to("m.onnx", STRANGE),
            lambda to: [to("m.onnx", layers.Activation("tanh")), to("m", STRANGE, verify=False)],
        ),
        case(
            "Give more examples, or export with a smaller batch_size",
            lambda to: to.calibrated(X[:3]),
            lambda to: [to.calibrated(X), to.calibrated(X[:3], batch_size=1)],
        ),
        case(
            "Remove these examples",
            lambda to: to.calibrated(np.where(np.arange(8)[:, None] == 3, np.nan, X)),
            lambda to: to.calibrated(np.delete(X, 3, axis=0)),
        ),
        case(
            "Build recurrent layers with unroll=True, or use 'float16' or 'dynamic_int8'",
            lambda to: to.model(
                recurrent(False), "m.tflite", quantization="int8", calibration_data=STEPS
            ),
            lambda to: [
                to.model(recurrent(True), "m.tflite", quantization="int8", calibration_data=STEPS),
                to.model(recurrent(False), "n.tflite", quantization="float16"),
            ],
        ),
        case(
            "Check the model's weights, or pass verify=False",
            lambda to: to.model(not_finite(), "m.tflite"),
            lambda to: [
                to.model(not_finite(mend=True), "m.tflite"),
                to.model(not_finite(), "n.tflite", verify=False),
            ],
        ),
    ],
)
def test_remedy(exports: Exports, words: str, wrong: Any, right: Any) -> None:
    check_remedy(words, lambda: wrong(exports), lambda: right(exports))


@pytest.mark.remedy("Check the path")
def test_benchmark_of_a_path_that_is_not_there(exports: Exports) -> None:
    exports("m.tflite")
    with pytest.raises(FileNotFoundError, match="Check the path"):
        keras_sbp.benchmark(exports.folder / "n.tflite", memory=False, repeats=1)
    keras_sbp.benchmark(exports.folder / "m.tflite", memory=False, repeats=1)


@pytest.mark.remedy("Measure with batch_size=")
def test_benchmark_of_another_batch_size(exports: Exports) -> None:
    exports("two.tflite", batch_size=2)
    exports("free.tflite", batch_size=None)
    two, free = exports.folder / "two.tflite", exports.folder / "free.tflite"
    options = {"memory": False, "repeats": 1}
    with pytest.raises(ValueError, match="Measure with batch_size=2, or export.*=3 or None"):
        keras_sbp.benchmark(two, batch_size=3, **options)
    keras_sbp.benchmark(two, batch_size=2, **options)
    keras_sbp.benchmark(free, batch_size=3, **options)


@pytest.mark.remedy("Change its permissions or choose another path")
def test_folder_that_may_not_be_written(
    exports: Exports, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
        with pytest.raises(PermissionError, match="Change its permissions"):
            exports()
        (tmp_path / "other").mkdir()
        exports("other/m.keras")
    exports()


@pytest.mark.remedy("Export a '.keras' file here, then load and export that in a process started")
def test_file_of_another_backend(exports: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(keras.backend, "backend", lambda: "jax")
        with pytest.raises(RuntimeError, match="Export a '.keras' file here"):
            exports("m.tflite")
        exports("m.keras")
    # This process was started so.
    exports.model(keras.saving.load_model(exports.folder / "m.keras"), "m.tflite")
