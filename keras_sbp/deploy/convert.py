"""The two calls of Keras's own `Model.export`, and what to say when one of them fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import keras


def to_litert(model: keras.Model, path: str, specs: Any) -> None:
    """Write a `.tflite` file of builtin operations only.

    Keras also admits TensorFlow's own kernels ("Flex" ops), which the LiteRT runtime does not
    contain; here they are ruled out, so a file that is written runs everywhere.

    Args:
        model: A Keras model that computes in float32.
        path: Where to write; ends in `.tflite`.
        specs: Input specs, from `input_specs`.

    Raises:
        RuntimeError: If Keras does not run on TensorFlow.
        ValueError: If an operation of the model has no LiteRT counterpart.
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "Exporting to LiteRT needs Keras on TensorFlow: expected KERAS_BACKEND=tensorflow, "
            f"received {keras.backend.backend()}. Save the model with model.save('model.keras'), "
            "then load and export it in a process started with KERAS_BACKEND=tensorflow. "
            "(A SavedModel can be exported from here.)"
        )
    tf = require_tensorflow()
    try:
        model.export(
            path,
            format="litert",
            verbose=False,
            input_signature=[specs],
            target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]},
        )
    except Exception as error:
        failures = list(_failures(error, model))
        if not failures:
            raise
        raise ValueError(
            f"Model '{model.name}' cannot be exported to LiteRT, which has no operation for "
            f"{'; '.join(failures)}. Replace these layers by ones made of simpler operations, or "
            "export a SavedModel (a path without suffix)."
        ) from error


def to_saved_model(model: keras.Model, path: str, specs: Any) -> None:
    """Write a SavedModel folder with the signature `serve` (alias `serving_default`).

    Args:
        model: A Keras model.
        path: The folder to write.
        specs: Input specs, from `input_specs`.
    """
    require_tensorflow()
    model.export(path, format="tf_saved_model", verbose=False, input_signature=[specs])


def require_tensorflow() -> ModuleType:
    """Import TensorFlow, or say how to get it.

    Returns:
        The `tensorflow` module.

    Raises:
        ImportError: If TensorFlow is not installed.
    """
    try:
        import tensorflow
    except ImportError as error:
        raise ImportError(
            "Exporting needs TensorFlow, which is not installed. Install it: "
            "`pip install 'keras-sbp[tf]'`."
        ) from error
    return tensorflow


def _failures(error: Exception, model: keras.Model) -> Iterator[str]:
    """One phrase per operation the converter rejected: its name and, where known, its layer."""
    names = set(_layer_names(model))
    said = set()
    for failure in getattr(error, "errors", ()):
        op = failure.operator.name.removeprefix("tf.")
        layer = _layer_of([call.name for call in failure.location.call], names)
        phrase = f"{op} (layer '{layer}')" if layer else op
        if op and phrase not in said:
            said.add(phrase)
            yield phrase


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
