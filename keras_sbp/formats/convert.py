"""The call of Keras's own `Model.export`, and what to say when it fails."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from keras_sbp.formats.packages import require
from keras_sbp.formats.precision import leaves

_LONGEST_QUOTE = 500


def export_with_keras(model: keras.Model, path: Any, form: str, specs: Any, **options: Any) -> None:
    """Writes a model at inference with Keras's own export.

    Args:
        model: A Keras model without gates.
        path: Where to write.
        form: What `keras.Model.export` calls the format.
        specs: Input specs, from `input_specs`.
        **options: More keyword arguments for `Model.export`.
    """
    Inference(model).export(
        str(path), format=form, verbose=False, input_signature=[specs], **options
    )


class Inference(keras.Model):
    """A model whose every call is one at inference.

    Keras traces some formats without saying whether it trains. A layer then goes by its own
    default, and that of `RandomFlip` and its like is training. What is called inside of this model
    with `training=False` hears nothing else, however deep it lies.

    Some layers (`RandomHue`) draw random numbers at inference too, which nobody reads there. On
    TensorFlow their seeds are left as they are: what stepped them would stay in a file.

    Args:
        model: A built model. It is shared, not copied, and not changed.
    """

    def __init__(self, model: keras.Model) -> None:
        # Inputs reach the model as they come; it has its own opinion of their dtypes.
        super().__init__(name=model.name, autocast=False)
        self.model = model
        self.built = True
        self._seeds = [v for v in model.variables if v.name == "seed_generator_state"]

    def call(self, inputs: Any) -> Any:
        """Call the model at inference."""
        if self._seeds and keras.backend.backend() == "tensorflow":
            found = self._without_stepping_seeds(inputs)
            if found is not None:
                return found[0]
        return self.model(inputs, training=False)

    def _without_stepping_seeds(self, inputs: Any) -> tuple[Any] | None:
        """The outputs, if they read no seed and no other variable is changed."""
        seeds = [(seed, keras.ops.multiply(seed, 1)) for seed in self._seeds]
        scope = keras.StatelessScope(seeds)
        try:
            with scope:
                outputs = self.model(inputs, training=False)
        except Exception:  # A seed that is stepped inside a loop. If it is more, it comes again.
            return None
        others = set(scope.state_mapping) - {id(seed) for seed, _ in seeds}
        if others or _reads(keras.tree.flatten(outputs), {value.op for _, value in seeds}):
            return None
        return (outputs,)


def _reads(outputs: list[Any], ops: set[Any]) -> bool:
    """Whether tensors of a graph of TensorFlow's depend on any of its operations."""
    waiting, seen = [tensor.op for tensor in outputs], set()
    while waiting:
        op = waiting.pop()
        if op in ops:
            return True
        if op not in seen:
            seen.add(op)
            waiting += [tensor.op for tensor in op.inputs]
    return False


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


@contextlib.contextmanager
def statistics_as_constants(model: keras.Model) -> Iterator[None]:
    """While this lasts, `Normalization` layers hold their statistics as NumPy arrays.

    As tensors of the backend they would become inputs of the graph that ONNX and OpenVINO take,
    inputs that nobody feeds.

    Args:
        model: The model; it is as before in the end.
    """
    held = [
        (layer, layer.mean, layer.variance)
        for layer in leaves(model)
        if isinstance(layer, keras.layers.Normalization) and layer.mean is not None
    ]
    try:
        for layer, mean, variance in held:
            layer.mean = keras.ops.convert_to_numpy(mean)
            layer.variance = keras.ops.convert_to_numpy(variance)
        yield
    finally:
        for layer, mean, variance in held:
            layer.mean, layer.variance = mean, variance


def with_layer(op: str, scopes: Iterable[str], model: keras.Model) -> str:
    """The name of an operation and, where its scopes tell it, of its layer."""
    layer = _layer_of(scopes, model)
    return f"{op} (layer '{layer}')" if layer else op


def refusal(model: keras.Model, title: str, failures: Iterable[str]) -> ValueError:
    """What to raise where a format lacks operations of a model.

    Args:
        model: The model.
        title: What people call the format.
        failures: The operations, each from `with_layer`; said once each.
    """
    return ValueError(
        f"Model '{model.name}' cannot be exported to {title}, which has no operation for "
        f"{'; '.join(dict.fromkeys(failures))}. Replace these layers by ones made of simpler "
        "operations, or export a SavedModel (a path without suffix)."
    )


def cannot_run(model: keras.Model, title: str, error: Exception) -> RuntimeError:
    """What to raise where a file was written that its own runtime does not load.

    Args:
        model: The model it was made from.
        title: What people call its format.
        error: What the runtime raised.

    Returns:
        An error that names the layer, where the runtime's own words tell it.
    """
    said = " ".join(str(error).split())
    scopes = [word for word in re.findall(r"[\w/.-]+", said) if "/" in word]
    layer = _layer_of(scopes, model)
    where = f" (layer '{layer}')" if layer else ""
    return RuntimeError(
        f"Model '{model.name}' was converted to {title}, but the file does not load in its "
        f"own runtime{where}: {type(error).__name__}: {said[:_LONGEST_QUOTE]} No file was written. "
        "Replace the layer by ones made of simpler operations, or export another format."
    )


def _layer_names(layer: keras.layers.Layer) -> Iterator[str]:
    for child in getattr(layer, "layers", None) or ():
        yield child.name
        yield from _layer_names(child)


def _layer_of(scopes: Iterable[str], model: keras.Model) -> str | None:
    """The innermost scope that is a layer's name; TensorFlow may have added `_1` to it."""
    names = set(_layer_names(model))
    for scope in scopes:
        for part in reversed(scope.split("@")[0].split("/")):
            for candidate in (part, re.sub(r"_\d+$", "", part)):
                if candidate in names:
                    return candidate
    return None
