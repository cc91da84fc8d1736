"""`export` and `benchmark`: Keras models, gated or not, to files, and such files measured."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras

from keras_sbp.benchmarking import BenchmarkResult
from keras_sbp.benchmarking.benchmark import measure
from keras_sbp.comparing.examples import GIVEN
from keras_sbp.comparing.full_precision import full_precision
from keras_sbp.comparing.tolerances import ANOTHER_RUNTIME
from keras_sbp.formats import ExportReport
from keras_sbp.formats.inputs import read_once
from keras_sbp.formats.target import target_of
from keras_sbp.formats.write import write
from keras_sbp.layers import find_gates
from keras_sbp.pruning import prune
from keras_sbp.telling import warn

Path = str | os.PathLike[str]


@full_precision()
def export(
    model: keras.Model,
    path: Path,
    *,
    format: str | None = None,
    quantization: Literal["float16", "dynamic_int8", "int8", "int16x8"] | None = None,
    calibration_data: Any = None,
    integer_io: bool = False,
    batch_size: int | None | Literal["auto"] = "auto",
    verify: Any = True,
    overwrite: bool = False,
) -> ExportReport:
    """Export a model to LiteRT, ONNX, OpenVINO or a SavedModel, through `keras.Model.export`.

    A model that still has gates is pruned first. The result is written beside its target, run in
    its own runtime, compared with the Keras model, and only then moved into place: a failure or a
    crash leaves the old file, or none.

    A `.tflite` file holds builtin LiteRT operations only. LiteRT, ONNX and OpenVINO files compute
    in float32; a model with another compute dtype is rebuilt in float32 for them, with the same
    weights.

    Args:
        model: A built Keras model.
        path: The target: `*.tflite` for LiteRT, `*.onnx`, `*.xml` for OpenVINO (its weights lie
            beside it in `*.bin`), `*.keras` for Keras itself, a folder without suffix for a
            SavedModel.
        format: `"litert"`, `"onnx"`, `"openvino"`, `"keras"` or `"saved_model"`; `None` reads it
            off the path.
        quantization: For LiteRT. `"float16"` stores weights in 16 bits, `"dynamic_int8"` large
            weights in 8 bits; both compute on floating inputs. `"int8"` and `"int16x8"` compute
            in integers throughout, with 8 or 16 bits for the values between layers.
        calibration_data: Inputs of the model, a few hundred typical examples: an array, or for
            several inputs a mapping by name or a list in their order; or `(x, y)`, a
            `tf.data.Dataset`, a `keras.utils.PyDataset` or a generator of batches, of which the
            first thousand examples are read. `"int8"` and `"int16x8"` need them to find the
            range of every tensor. If given, verification uses them.
        integer_io: Whether a full-integer file takes and gives integers as well, instead of
            quantising floating inputs itself.
        batch_size: Size of the batch axis. `"auto"` is 1 for LiteRT, which spares the file all
            shape arithmetic, and free for the others; `None` leaves it free, an integer fixes it.
        verify: Whether to compare the file with the Keras model, on `calibration_data` or else
            on inputs that are drawn so that the model runs on them. Instead of True, examples to
            compare on, in any form that `calibration_data` takes. Allowed is max|Δ| ≤ 1e-4 max|y|
            at each output for a model that computes in float32 or float64, 1e-2 for float16, 5e-2
            for bfloat16. Of a quantised file the root mean square of Δ is compared with that of
            y: allowed is 0.01 for `"float16"`, 0.1 for `"dynamic_int8"` and `"int16x8"`, 0.2 for
            `"int8"`, or more where 98 % of at least 50 predictions are the same.
        overwrite: Whether an existing file, or a folder that holds a SavedModel and nothing
            else, is replaced.

    Returns:
        An `ExportReport`.

    Raises:
        ImportError: If a package that the format needs is not installed.
        ValueError: If the path does not fit the format, the model is not built, or an operation
            of it does not exist in the format or cannot be quantised.
        OSError: If the path exists and `overwrite` is false, or cannot be written.
        RuntimeError: If the file does not compute what the model computes, or the backend cannot
            export.

    Example:

    ```python
    report = keras_sbp.export(model, "small.tflite")
    print(report.bytes, report.ops)
    ```
    """
    target = target_of(
        path,
        format=format,
        batch_size=batch_size,
        quantization=quantization,
        integer_io=integer_io,
        calibrated=calibration_data is not None,
        verify=verify is not False,
        overwrite=overwrite,
    )
    examples = None
    if not isinstance(verify, bool):
        examples = read_once(model, target.batch_size, verify, "verify")
    prune_report = None
    if find_gates(model):
        model, prune_report = prune(model, verify=verify if examples is None else examples)
    report = write(model, target, calibration_data, examples)
    if prune_report is None:  # Else pruning has warned.
        _warn_of_constant(model.name, report)
    return dataclasses.replace(report, prune_report=prune_report)


def _warn_of_constant(name: str, report: ExportReport) -> None:
    allowed = ANOTHER_RUNTIME["float32"] if report.quantization else report.tolerance
    if report.variation is None or allowed is None or report.variation > allowed:
        return
    remedy = "Pass verify=examples, a batch of inputs as for predict()."
    if any(each.values == GIVEN for each in report.compared):
        remedy = "Give examples that differ more."
    warn(
        f"Verification: an output of model '{name}' hardly changes with the inputs that the "
        "exported file was compared on, so that agreement shows little. Expected outputs that "
        f"depend on the inputs. {remedy}"
    )


def benchmark(
    models: Any,
    *,
    batch_size: int = 1,
    num_threads: int = 1,
    repeats: int = 100,
    memory: bool = True,
) -> BenchmarkResult:
    """Measure models side by side: size, load time, latency and peak memory.

    They are run in turns (A, B, C, A, B, C, ...) on the same random inputs, each in its own
    runtime, so that whatever else the machine does falls on all of them alike and the ratios hold.
    Absolute times are those of this machine, now.

    Args:
        models: What to compare, the yardstick first: paths of `.tflite`, `.onnx`, `.xml` and
            `.keras` files and SavedModel folders, and Keras models, which are exported to
            temporary LiteRT files (and pruned first, if they have gates). A list, a mapping from
            names, or a single one.
        batch_size: Examples per call.
        num_threads: Threads per call. SavedModels and `.keras` files use those of the whole
            process instead, as their rows say.
        repeats: Number of timed turns each model gets, at least.
        memory: Whether to measure peak memory, in a new process for each model, which takes a
            few seconds each.

    Returns:
        A `BenchmarkResult`, with `rows`, `print()` and `to_dict()`.

    Raises:
        FileNotFoundError: If there is nothing at a path.
        ValueError: If a path is no model, or has a fixed batch size other than `batch_size`.

    Example:

    ```python
    keras_sbp.benchmark(["large.tflite", "small.tflite"]).print()
    ```
    """
    with tempfile.TemporaryDirectory(prefix="keras_sbp_") as folder:
        paths = {
            name: _as_file(model, pathlib.Path(folder, f"{i}.tflite"), batch_size)
            for i, (name, model) in enumerate(_named(models).items())
        }
        return measure(
            paths,
            batch_size=batch_size,
            num_threads=num_threads,
            repeats=repeats,
            memory=memory,
        )


def _as_file(model: Any, path: pathlib.Path, batch_size: int) -> Path:
    if not isinstance(model, keras.Model):
        return model
    export(model, path, batch_size=batch_size, verify=False)
    return path


def _named(models: Any) -> dict[str, Any]:
    """Models by name; a path is its own, and what appears twice is numbered."""
    if isinstance(models, Mapping):
        return {str(name): model for name, model in models.items()}
    many = isinstance(models, Sequence) and not isinstance(models, str)
    named: dict[str, Any] = {}
    for model in models if many else [models]:
        if not isinstance(model, keras.Model | str | os.PathLike):
            raise TypeError(
                "Expected Keras models and paths of exported ones, received "
                f"{type(model).__name__}."
            )
        name = model.name if isinstance(model, keras.Model) else os.fspath(model)
        same = sum(other == name or other.startswith(f"{name} (") for other in named)
        named[f"{name} ({same + 1})" if same else name] = model
    return named
