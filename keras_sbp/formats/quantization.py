"""Quantised LiteRT files: arguments for Keras's own export, and what is checked around it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_sbp.formats.base import Format
from keras_sbp.formats.convert import traced_nodes
from keras_sbp.formats.litert_model import float_ops
from keras_sbp.formats.packages import require

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Quantization:
    """One way to quantise.

    Attributes:
        ops: Name of the set of LiteRT operations that the file may hold.
        integer: Integer type of the activations, `None` where they stay floating.
        tolerance: Largest root mean square of the differences from the Keras model, as a
            fraction of that of its outputs. float16 rounds weights to 11 bits. The others round
            them to 8, and int8 the activations too, at every layer.
    """

    ops: str
    integer: str | None
    tolerance: float


QUANTIZATIONS = {
    "float16": Quantization("TFLITE_BUILTINS", None, 0.01),
    "dynamic_int8": Quantization("TFLITE_BUILTINS", None, 0.1),
    "int8": Quantization("TFLITE_BUILTINS_INT8", "int8", 0.2),
    "int16x8": Quantization(
        "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8", "int16", 0.1
    ),
}
# These have integer kernels, but in unrolled recurrent layers the converter (TensorFlow 2.21)
# leaves some in floating point, in one of some five conversions of the same model.
_BY_LUCK = {"SPLIT"}
_ATTEMPTS = 6
_LOOPS = {"While", "StatelessWhile", "If", "StatelessIf"}


def check_quantization(
    name: str | None, form: Format, *, integer_io: bool, calibrated: bool
) -> None:
    """Refuse arguments of quantisation that do not fit each other.

    Raises:
        ValueError: If they do not.
    """
    if name is not None and name not in QUANTIZATIONS:
        names = ", ".join(repr(known) for known in QUANTIZATIONS)
        raise ValueError(f"`quantization` must be None or one of {names}, received {name!r}.")
    if name is not None and form.name != "litert":
        raise ValueError(
            f"quantization={name!r} is for LiteRT: expected a path that ends in '.tflite', "
            f"received the format {form.name!r}."
        )
    integer = name is not None and QUANTIZATIONS[name].integer is not None
    if integer_io and not integer:
        raise ValueError(
            "integer_io=True needs a file that computes in integers: expected quantization='int8' "
            f"or 'int16x8', received {name!r}."
        )
    if integer and not calibrated:
        raise ValueError(
            f"quantization={name!r} needs examples to find the range of every tensor: expected "
            "calibration_data, inputs of the model as for model.predict, a few hundred of them, "
            "received None. quantization='dynamic_int8' needs no data."
        )


def converter_options(
    name: str | None, integer_io: bool, batches: Iterable[Batch]
) -> dict[str, Any]:
    """The keyword arguments of `Model.export(format="litert")` for one quantisation.

    Args:
        name: One of `QUANTIZATIONS`, or `None`.
        integer_io: Whether inputs and outputs are integers too.
        batches: Calibration data.

    Returns:
        Keyword arguments; they always rule out TensorFlow's own kernels.
    """
    tf = require("tensorflow", "Exporting to LiteRT")
    if name is None:
        return {"target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}}
    how = QUANTIZATIONS[name]
    options: dict[str, Any] = {
        "optimizations": [tf.lite.Optimize.DEFAULT],
        "target_spec": {"supported_ops": [getattr(tf.lite.OpsSet, how.ops)]},
    }
    if name == "float16":
        options["target_spec"]["supported_types"] = [tf.float16]
    if how.integer:
        options["representative_dataset"] = _dataset(batches)
    if integer_io:
        options["inference_input_type"] = getattr(tf, how.integer)
        options["inference_output_type"] = getattr(tf, how.integer)
    return options


def refuse_loops(model: keras.Model, specs: Any, name: str | None) -> None:
    """Refuse a model with loops, where measuring ranges inside them would crash the process.

    Args:
        model: The Keras model.
        specs: Its input specs.
        name: One of `QUANTIZATIONS`, or `None`.

    Raises:
        ValueError: If ranges are to be measured and the model has a loop; names its layers.
    """
    if name is None or QUANTIZATIONS[name].integer is None:
        return
    nodes = traced_nodes(model, specs, "Exporting to LiteRT")
    loops = sorted({node.name for node in nodes if node.op in _LOOPS})
    if loops:
        raise ValueError(
            f"Model '{model.name}' cannot be exported with quantization={name!r}, for which "
            f"LiteRT cannot measure ranges inside loops: found {', '.join(map(repr, loops))}. "
            "Build recurrent layers with unroll=True, or use 'float16' or 'dynamic_int8'."
        )


def quantized(
    convert: Callable[[], None], path: str | os.PathLike[str], model_name: str, name: str | None
) -> None:
    """Convert, and refuse a full-integer file with a floating operation inside.

    Args:
        convert: Writes the file.
        path: The `.tflite` file.
        model_name: Name of the model it is made from.
        name: One of `QUANTIZATIONS`, or `None`.

    Raises:
        ValueError: If there is one; names the operations and their tensors.
    """
    convert()
    if name is None or QUANTIZATIONS[name].integer is None:
        return
    found = float_ops(path)
    for _ in range(_ATTEMPTS - 1):
        if not found or {op for op, _ in found} - _BY_LUCK:
            break
        convert()
        found = float_ops(path)
    if found:
        said = "; ".join(f"{op} ('{tensor}')" for op, tensor in found)
        raise ValueError(
            f"Model '{model_name}' cannot be exported with quantization={name!r}: expected a file "
            "that computes in integers only, but LiteRT has no integer kernel for "
            f"{said}. Replace these layers by ones made of other operations, or use "
            "quantization='float16' or 'dynamic_int8'."
        )


def _dataset(batches: Iterable[Batch]) -> Callable[[], Iterator[Batch]]:
    return lambda: iter(batches)
