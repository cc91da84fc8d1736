"""LiteRT files."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from keras_sbp.formats.base import Format, register_format
from keras_sbp.formats.convert import export_with_keras, refusal, with_layer
from keras_sbp.formats.integer_casts import fold_integer_casts
from keras_sbp.formats.litert_model import LiteRTModel, op_names
from keras_sbp.formats.packages import require
from keras_sbp.formats.precision import float32_twin
from keras_sbp.formats.quantization import (
    QUANTIZATIONS,
    Quantizing,
    convert_to_integers,
    converter_options,
    refuse_loops,
)

# With 16-bit values the converter refuses what it otherwise leaves floating.
_NO_CAST = "not yet supported for op: 'CAST'"


@register_format
class LiteRT(Format):
    """A `.tflite` file; it computes in float32, or quantised, with builtin operations only."""

    name, title, suffix = "litert", "LiteRT", ".tflite"
    packages = ("tensorflow",)
    runtime = "tensorflow"
    batch_size = 1
    quantizations = tuple(QUANTIZATIONS)

    def convert(
        self, model: keras.Model, path: pathlib.Path, specs: Any, quantization: Quantizing | None
    ) -> None:
        """Writes a model; a quantised file is converted again where that may be worth it."""
        twin, options = float32_twin(model), converter_options(quantization)

        def write() -> None:
            _convert(twin, path, specs, options)

        if quantization is None or not quantization.integer:
            write()
        else:
            refuse_loops(model, specs, quantization.name)
            convert_to_integers(write, path, model.name, quantization.name)

    def load(self, path: pathlib.Path, num_threads: int) -> LiteRTModel:
        """Loads a file into the LiteRT interpreter."""
        return LiteRTModel(path, num_threads)

    def ops(self, path: pathlib.Path) -> tuple[str, ...]:
        """Names of the operations in a file, in order."""
        return op_names(path)


def _convert(
    model: keras.Model, path: pathlib.Path, specs: Any, options: Mapping[str, Any]
) -> None:
    # Keras also admits TensorFlow's own kernels ("Flex" ops), which the LiteRT runtime does not
    # contain; the options rule them out, so a file that is written runs everywhere.
    try:
        _convert_leniently(model, path, specs, options)
    except Exception as error:
        failures = list(_failures(error, model))
        if failures:
            raise refusal(model, "LiteRT", failures) from error
        if "optimizations" in options:
            raise ValueError(
                f"Model '{model.name}' cannot be quantised in this way; the converter says: "
                f"{str(error).strip().splitlines()[0]} Choose another `quantization` (float16 and "
                "dynamic_int8 ask the least), or replace the layer."
            ) from error
        raise


def _convert_leniently(
    model: keras.Model, path: pathlib.Path, specs: Any, options: Mapping[str, Any]
) -> None:
    try:
        export_with_keras(model, path, "litert", specs, **options)
    except Exception as error:
        if _NO_CAST not in str(error):
            raise
        # Casts may stay floating until they are folded; what else does is refused after that.
        tf = require("tensorflow", "Exporting to LiteRT")
        ops = [*options["target_spec"]["supported_ops"], tf.lite.OpsSet.TFLITE_BUILTINS]
        lenient = {**options, "target_spec": {**options["target_spec"], "supported_ops": ops}}
        export_with_keras(model, path, "litert", specs, **lenient)
    if "representative_dataset" in options:
        fold_integer_casts(path)


def _failures(error: Exception, model: keras.Model) -> Iterator[str]:
    """One phrase per operation the converter rejected: its name and, where known, its layer."""
    for failure in getattr(error, "errors", ()):
        op = failure.operator.name.removeprefix("tf.")
        if op:
            yield with_layer(op, [call.name for call in failure.location.call], model)
