"""Every architecture in every format and quantisation: it runs in its own runtime and agrees."""

from __future__ import annotations

import collections
import functools

import keras
import numpy as np
import pytest

from keras_sbp import export
from keras_sbp.formats.litert_model import LiteRTModel, float_ops
from tests.formats.architectures import (
    ARCHITECTURES,
    answers,
    convolutional,
    examples,
    recurrent,
    two_to_two,
)

pytestmark = pytest.mark.tensorflow

EXAMPLES = 60
RUNTIMES = {}


def runtime(format: str):
    def register(function):
        RUNTIMES[format] = function
        return function

    return register


@runtime("onnx")
def _run_onnx(path: str, inputs: dict) -> list[np.ndarray]:
    import onnxruntime

    return onnxruntime.InferenceSession(path).run(None, inputs)


@runtime("openvino")
def _run_openvino(path: str, inputs: dict) -> list[np.ndarray]:
    import openvino

    # Processors with bfloat16 would use it.
    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [np.array(value) for value in compiled(inputs).values()]


@runtime("saved_model")
def _run_saved_model(path: str, inputs: dict) -> dict[str, np.ndarray]:
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    outputs = loaded.signatures["serving_default"](**{n: tf.constant(v) for n, v in inputs.items()})
    return {name: value.numpy() for name, value in outputs.items()}


@runtime("keras")
def _run_keras(path: str, inputs: dict) -> dict[str, np.ndarray]:
    model = keras.saving.load_model(path, safe_mode=True)
    return answers(model, inputs)


TARGETS = {"onnx": "m.onnx", "openvino": "m.xml", "saved_model": "m", "keras": "m.keras"}


@functools.cache
def _network(build) -> tuple[keras.Model, dict[str, np.ndarray]]:
    keras.utils.set_random_seed(0)
    model = build()
    return model, examples(model, EXAMPLES)


def _unless(quick, build) -> tuple[pytest.MarkDecorator, ...]:
    """One architecture is for every edit."""
    return () if build is quick else (pytest.mark.stress,)


architectures = pytest.mark.parametrize(
    "build",
    [pytest.param(b, id=b.__name__, marks=_unless(two_to_two, b)) for b in ARCHITECTURES],
)


def _sizes(model: keras.Model) -> int:
    return 4 * model.count_params()


@architectures
@pytest.mark.parametrize("format", TARGETS)
def test_formats(build, format, tmp_path):
    model, inputs = _network(build)
    report = export(model, tmp_path / TARGETS[format])
    assert report.format == format
    assert report.max_abs_error <= 1e-5
    assert report.batch_size is None
    received = RUNTIMES[format](report.path, inputs)
    expected = answers(model, inputs)
    if isinstance(received, list):
        received = dict(zip(sorted(expected), received, strict=True))
    for name, value in expected.items():
        assert np.ptp(value) > 1e-3
        np.testing.assert_allclose(received[name], value, atol=1e-5, rtol=1e-5)
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert report.bytes == sum(p.stat().st_size for p in files) > _sizes(model)
    if format in ("onnx", "openvino"):
        kind = {"onnx": ("Gemm", "MatMul"), "openvino": ("MatMul",)}[format]
        assert any(op in kind for op in report.ops)
    else:
        assert report.ops == ()


def _relative_error(model: keras.Model, path: str, inputs: dict[str, np.ndarray]) -> float:
    runtime, expected = LiteRTModel(path), answers(model, inputs)
    received = collections.defaultdict(list)
    for i in range(EXAMPLES):
        for name, value in runtime({n: v[i : i + 1] for n, v in inputs.items()}).items():
            received[name].append(value[0])
    assert set(received) == set(expected)
    return max(
        float(np.linalg.norm(np.array(received[n]) - value) / np.linalg.norm(value))
        for n, value in expected.items()
    )


# What each may differ by, and how many bytes a weight of a large kernel takes.
QUANTIZATIONS = {
    None: (1e-5, 4),
    "float16": (2e-3, 2),
    "dynamic_int8": (0.05, 1),
    "int8": (0.1, 1),
    "int16x8": (0.05, 1),
}


# LiteRT has no int16x8 for integer inputs; test_quantization.py shows what is said of it.
CASES = [
    pytest.param(
        build,
        quantization,
        id=f"{build.__name__}-{quantization}",
        marks=_unless(convolutional, build),
    )
    for build in ARCHITECTURES
    for quantization in QUANTIZATIONS
    if (build, quantization) != (recurrent, "int16x8")
]


@pytest.mark.parametrize(("build", "quantization"), CASES)
def test_quantizations(build, quantization, tmp_path):
    model, inputs = _network(build)
    report = export(
        model, tmp_path / "m.tflite", quantization=quantization, calibration_data=inputs
    )
    allowed, width = QUANTIZATIONS[quantization]
    assert _relative_error(model, report.path, inputs) <= allowed
    assert report.relative_error <= allowed
    assert report.examples == EXAMPLES
    assert report.quantization == quantization
    assert report.agreement >= 0.9
    assert not [op for op in report.ops if op.startswith("Flex")]
    assert LiteRTModel(report.path).ops == report.ops
    kernels = sum(w.size for w in model.get_weights() if w.size >= 1024)
    graph = 700 * len(report.ops) + 4 * (model.count_params() - kernels) + 2000
    assert width * kernels < report.bytes < width * kernels + graph
    types = _types(report.path)
    if quantization in ("int8", "int16x8"):
        assert float_ops(report.path) == ()
        border = types.pop("float32", 0)
        assert border == sum("float" in tensor.dtype for tensor in (*model.inputs, *model.outputs))
        assert types["int8" if quantization == "int8" else "int16"]
    elif quantization == "dynamic_int8":
        assert types["int8"]
    else:
        assert "int8" not in types
        assert ("float16" in types) == (quantization == "float16")


def _types(path: str) -> collections.Counter:
    """How many tensors of each dtype a file holds, read in another way than the package does."""
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(model_path=path)
    interpreter.allocate_tensors()
    return collections.Counter(
        np.dtype(item["dtype"]).name for item in interpreter.get_tensor_details()
    )
