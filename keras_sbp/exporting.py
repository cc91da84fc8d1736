"""`export`: from a Keras model, gated or not, to a file that runs without Keras."""

from __future__ import annotations

import dataclasses
import os
from typing import Literal

import keras

from keras_sbp.deploy import ExportReport
from keras_sbp.deploy.write import target_of, write
from keras_sbp.graph import find_gates
from keras_sbp.pruning import prune


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    batch_size: int | None | Literal["auto"] = "auto",
    verify: bool = True,
    overwrite: bool = False,
) -> ExportReport:
    """Export a model to LiteRT (`.tflite`) or to a SavedModel, through `keras.Model.export`.

    A model that still has gates is pruned first. The result is written beside its target, run in
    its own runtime on random inputs, compared with the Keras model, and only then moved into
    place: a failure or a crash leaves the old file, or none.

    A `.tflite` file holds builtin LiteRT operations only and computes in float32; a model with
    another compute dtype is rebuilt in float32 for it, with the same weights.

    Args:
        model: A built Keras model.
        path: The target: `*.tflite` for LiteRT, a folder without suffix for a SavedModel.
        format: `"litert"` or `"saved_model"`; `None` reads it off the path.
        batch_size: Size of the batch axis. `"auto"` is 1 for LiteRT, which spares the file all
            shape arithmetic, and free for a SavedModel; `None` leaves it free, an integer
            fixes it.
        verify: Whether to compare the file with the Keras model. Allowed is max|Δ| ≤ 1e-4
            max|y| at each output for a model that computes in float32 or float64, 1e-2 for
            float16, 5e-2 for bfloat16.
        overwrite: Whether an existing file, or a folder that holds a SavedModel and nothing
            else, is replaced.

    Returns:
        An `ExportReport`.

    Raises:
        ImportError: If TensorFlow is not installed.
        ValueError: If the path does not fit the format, the model is not built, or an operation
            of it does not exist in LiteRT.
        OSError: If the path exists and `overwrite` is false, or cannot be written.
        RuntimeError: If the file does not compute what the model computes, or the backend cannot
            export.

    Example:

    ```python
    report = keras_sbp.export(model, "small.tflite")
    print(report.bytes, report.ops)
    ```
    """
    target = target_of(path, format, batch_size, overwrite)
    prune_report = None
    if find_gates(model):
        model, prune_report = prune(model, verify=verify)
    report = write(model, target, verify=verify)
    return dataclasses.replace(report, prune_report=prune_report)
