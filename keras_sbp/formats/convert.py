"""The calls of Keras's own `Model.export`, and what to say when one of them fails."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from keras_sbp.formats.base import FORMATS, Format
from keras_sbp.formats.integer_casts import fold_integer_casts
from keras_sbp.formats.packages import require
from keras_sbp.formats.precision import float32_twin
from keras_sbp.formats.workarounds import (
    remove_dangling_outputs,
    repair_transposed_convolutions,
    statistics_as_constants,
    teach_erfc,
)

_LONGEST_QUOTE = 500
# With 16-bit values the converter refuses what it otherwise leaves floating.
_NO_CAST = "not yet supported for op: 'CAST'"
# OpenVINO has no tables of words, and makes of each an input that the model does not have.
_LOST_TABLE = r"Parameter \S+/(\w+)/table_handle"


def convert(
    model: keras.Model, path: str, form: Format, specs: Any, options: Mapping[str, Any]
) -> None:
    """Write a model with Keras's own export.

    LiteRT, ONNX and OpenVINO files compute in float32: a model with another compute dtype is
    rebuilt for them.

    Args:
        model: A Keras model without gates.
        path: Where to write; has the suffix of the format.
        form: The format.
        specs: Input specs, from `input_specs`.
        options: More keyword arguments for `Model.export`, from `converter_options`.

    Raises:
        ValueError: If an operation of the model has no counterpart in the format.
    """
    if form.name == "keras":
        model.save(path)
    elif form.name == "saved_model":
        _export(model, path, form, specs)
    elif form.name == "litert":
        _to_litert(float32_twin(model), path, specs, options)
    elif form.name == "onnx":
        _to_onnx(float32_twin(model), path, specs)
    else:
        _to_openvino(float32_twin(model), path, specs)


class Inference(keras.Model):
    """A model whose every call is one at inference.

    Keras traces some formats without saying whether it trains. A layer then goes by its own
    default, and that of `RandomFlip` and its like is training. What is called inside of this model
    with `training=False` hears nothing else, however deep it lies.

    Args:
        model: A built model. It is shared, not copied, and not changed.
    """

    def __init__(self, model: keras.Model) -> None:
        # Inputs reach the model as they come; it has its own opinion of their dtypes.
        super().__init__(name=model.name, autocast=False)
        self.model = model
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Call the model at inference."""
        return self.model(inputs, training=False)


def traced_nodes(model: keras.Model, specs: Any, doing: str) -> list[Any]:
    """Nodes of the graph of a model at inference, and of the functions in it.

    Args:
        model: A Keras model on TensorFlow.
        specs: Its input specs, from `input_specs`.
        doing: What TensorFlow is needed for, for messages.

    Returns:
        A list of `NodeDef`, with the layers' names in front of their own.
    """
    tf = require("tensorflow", doing)
    inputs = keras.tree.map_structure(
        lambda spec: tf.TensorSpec(spec.shape, spec.dtype, spec.name), specs
    )
    traced = tf.function(lambda x: model(x, training=False)).get_concrete_function(inputs)
    graph = traced.graph.as_graph_def()
    return [*graph.node, *(node for f in graph.library.function for node in f.node_def)]


def _export(model: keras.Model, path: str, form: Format, specs: Any, **options: Any) -> None:
    Inference(model).export(
        path, format=form.export_name, verbose=False, input_signature=[specs], **options
    )


def _to_litert(model: keras.Model, path: str, specs: Any, options: Mapping[str, Any]) -> None:
    # Keras also admits TensorFlow's own kernels ("Flex" ops), which the LiteRT runtime does not
    # contain; the options rule them out, so a file that is written runs everywhere.
    try:
        _export_litert(model, path, specs, options)
    except Exception as error:
        failures = list(_failures(error, model))
        if failures:
            raise _refusal(model, "LiteRT", failures) from error
        if "optimizations" in options:
            raise ValueError(
                f"Model '{model.name}' cannot be quantised in this way; the converter says: "
                f"{str(error).strip().splitlines()[0]} Choose another `quantization` (float16 and "
                "dynamic_int8 ask the least), or replace the layer."
            ) from error
        raise


def _export_litert(model: keras.Model, path: str, specs: Any, options: Mapping[str, Any]) -> None:
    try:
        _export(model, path, FORMATS["litert"], specs, **options)
    except Exception as error:
        if _NO_CAST not in str(error):
            raise
        # Casts may stay floating until they are folded; what else does is refused after that.
        tf = require("tensorflow", "Exporting to LiteRT")
        ops = [*options["target_spec"]["supported_ops"], tf.lite.OpsSet.TFLITE_BUILTINS]
        lenient = {**options, "target_spec": {**options["target_spec"], "supported_ops": ops}}
        _export(model, path, FORMATS["litert"], specs, **lenient)
    if "representative_dataset" in options:
        fold_integer_casts(path)


def _to_onnx(model: keras.Model, path: str, specs: Any) -> None:
    teach_erfc()
    with statistics_as_constants(model):
        _export(model, path, FORMATS["onnx"], specs)
    # What the converter does not know it copies, and the file loads nowhere.
    onnx = require("onnx", "Exporting to ONNX")
    written = onnx.load(path)
    failures = [
        _phrase(node.op_type, [node.name], set(_layer_names(model)))
        for node in written.graph.node
        if not onnx.defs.has(node.op_type, node.domain)
    ]
    if failures:
        raise _refusal(model, "ONNX", list(dict.fromkeys(failures)))
    if repair_transposed_convolutions(written):
        onnx.save(written, path)


def _to_openvino(model: keras.Model, path: str, specs: Any) -> None:
    ov = require("openvino", "Exporting to OpenVINO")
    try:
        with statistics_as_constants(model):
            _export(model, path, FORMATS["openvino"], specs)
    except (ov.frontend.OpConversionFailure, RuntimeError) as error:
        ops = _missing_in_openvino(str(error))
        if ops:
            nodes = traced_nodes(model, specs, "Exporting to OpenVINO")
            names = set(_layer_names(model))
            found = [_phrase(node.op, [node.name], names) for node in nodes if node.op in ops]
            raise _refusal(model, "OpenVINO", list(dict.fromkeys(found or ops))) from error
        if isinstance(error, ov.frontend.OpConversionFailure):
            raise _refusal(model, "OpenVINO", [str(error)]) from error
        raise
    remove_dangling_outputs(path)


def _missing_in_openvino(said: str) -> list[str]:
    """The operations that an error of OpenVINO's says it does not have."""
    found = re.search(r"No conversion rule found for operations: (.+)", said)
    return re.split(r",\s*", found[1].strip()) if found else re.findall(_LOST_TABLE, said)


def cannot_run(model: keras.Model, form: Format, error: Exception) -> RuntimeError:
    """What to raise where a file was written that its own runtime does not load.

    Args:
        model: The model it was made from.
        form: Its format.
        error: What the runtime raised.

    Returns:
        An error that names the layer, where the runtime's own words tell it.
    """
    said = " ".join(str(error).split())
    scopes = [word for word in re.findall(r"[\w/.-]+", said) if "/" in word]
    layer = _layer_of(scopes, set(_layer_names(model)))
    where = f" (layer '{layer}')" if layer else ""
    return RuntimeError(
        f"Model '{model.name}' was converted to {form.title}, but the file does not load in its "
        f"own runtime{where}: {type(error).__name__}: {said[:_LONGEST_QUOTE]} No file was written. "
        "Replace the layer by ones made of simpler operations, or export another format."
    )


def _refusal(model: keras.Model, title: str, failures: list[str]) -> ValueError:
    return ValueError(
        f"Model '{model.name}' cannot be exported to {title}, which has no operation for "
        f"{'; '.join(failures)}. Replace these layers by ones made of simpler operations, or "
        "export a SavedModel (a path without suffix)."
    )


def _failures(error: Exception, model: keras.Model) -> Iterator[str]:
    """One phrase per operation the converter rejected: its name and, where known, its layer."""
    names = set(_layer_names(model))
    said = set()
    for failure in getattr(error, "errors", ()):
        op = failure.operator.name.removeprefix("tf.")
        phrase = _phrase(op, [call.name for call in failure.location.call], names)
        if op and phrase not in said:
            said.add(phrase)
            yield phrase


def _phrase(op: str, scopes: list[str], names: set[str]) -> str:
    layer = _layer_of(scopes, names)
    return f"{op} (layer '{layer}')" if layer else op


def _layer_names(layer: keras.layers.Layer) -> Iterator[str]:
    for child in getattr(layer, "layers", None) or ():
        yield child.name
        yield from _layer_names(child)


def _layer_of(scopes: list[str], names: set[str]) -> str | None:
    """The innermost scope that is a layer's name; TensorFlow may have added `_1` to it."""
    for scope in scopes:
        for part in reversed(scope.split("@")[0].split("/")):
            for candidate in (part, re.sub(r"_\d+$", "", part)):
                if candidate in names:
                    return candidate
    return None
