"""Quantised LiteRT files: arguments for Keras's own export, and what is checked around it."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

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


@dataclasses.dataclass(frozen=True)
class Quantizing:
    """How one file is quantised.

    Attributes:
        name: One of `QUANTIZATIONS`.
        integer_io: Whether inputs and outputs are integers too.
        batches: Calibration data.
    """

    name: str
    integer_io: bool = False
    batches: Sequence[Batch] = ()

    @property
    def integer(self) -> str | None:
        """Integer type of the activations, `None` where they stay floating."""
        return QUANTIZATIONS[self.name].integer


def converter_options(quantization: Quantizing | None) -> dict[str, Any]:
    """The keyword arguments of `Model.export(format="litert")` for one quantisation.

    Args:
        quantization: How to quantise, or `None`.

    Returns:
        Keyword arguments; they always rule out TensorFlow's own kernels.
    """
    tf = require("tensorflow", "Exporting to LiteRT")
    if quantization is None:
        return {"target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}}
    how = QUANTIZATIONS[quantization.name]
    options: dict[str, Any] = {
        "optimizations": [tf.lite.Optimize.DEFAULT],
        "target_spec": {"supported_ops": [getattr(tf.lite.OpsSet, how.ops)]},
    }
    if quantization.name == "float16":
        options["target_spec"]["supported_types"] = [tf.float16]
    if how.integer:
        options["representative_dataset"] = lambda: iter(quantization.batches)
    if how.integer and quantization.integer_io:
        options["inference_input_type"] = getattr(tf, how.integer)
        options["inference_output_type"] = getattr(tf, how.integer)
    return options


def refuse_loops(model: keras.Model, specs: Any, name: str) -> None:
    """Refuses a model with loops, where measuring ranges inside them would crash the process.

    Args:
        model: The Keras model.
        specs: Its input specs.
        name: A quantisation with integer activations, whose ranges are measured.

    Raises:
        ValueError: If the model has a loop; names its layers.
    """
    nodes = traced_nodes(model, specs, "Exporting to LiteRT")
    loops = sorted({node.name for node in nodes if node.op in _LOOPS})
    if loops:
        raise ValueError(
            f"Model '{model.name}' cannot be exported with quantization={name!r}, for which "
            f"LiteRT cannot measure ranges inside loops: found {', '.join(map(repr, loops))}. "
            "Build recurrent layers with unroll=True, or use 'float16' or 'dynamic_int8'."
        )


def convert_to_integers(
    convert: Callable[[], None], path: pathlib.Path, model_name: str, name: str
) -> None:
    """Converts, and refuses a full-integer file with a floating operation inside.

    Args:
        convert: Writes the file.
        path: The `.tflite` file.
        model_name: Name of the model it is made from.
        name: A quantisation with integer activations.

    Raises:
        ValueError: If there is one; names the operations and their tensors.
    """
    convert()
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
