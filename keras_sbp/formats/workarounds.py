"""What Keras's export stumbles over in ONNX and OpenVINO, each put right in one place."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_sbp.formats.packages import require
from keras_sbp.formats.precision import leaves


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


@functools.cache
def teach_erfc() -> None:
    """Tell tf2onnx what TensorFlow's Erfc is, which every exact GELU holds."""
    handlers = require("tf2onnx.handler", "Exporting to ONNX")

    @handlers.tf_op("Erfc")
    class _Erfc:
        @classmethod
        def version_9(cls, ctx: Any, node: Any, **_: Any) -> None:
            shapes, dtypes = node.output_shapes, node.output_dtypes
            name = f"{node.name}_complement"
            ctx.remove_node(node.name)
            one = ctx.make_const(f"{name}_one", np.array(1.0, "float32"))
            erf = ctx.make_node("Erf", [node.input[0]], name=f"{name}_erf")
            ctx.make_node(
                "Sub",
                [one.output[0], erf.output[0]],
                name=name,
                outputs=node.output,
                shapes=shapes,
                dtypes=dtypes,
            )


def repair_transposed_convolutions(onnx_model: Any) -> bool:
    """Say `output_padding` where tf2onnx says padding of less than nothing, which ONNX refuses.

    A transposed convolution may have rows that no row of its input reaches. TensorFlow adds them at
    the end.

    Args:
        onnx_model: The loaded model, which is changed.

    Returns:
        Whether anything was changed.
    """
    onnx = require("onnx", "Exporting to ONNX")
    changed = False
    for node in onnx_model.graph.node:
        given = {attribute.name: list(attribute.ints) for attribute in node.attribute}
        pads = given.get("pads", []) if node.op_type == "ConvTranspose" else []
        totals = [sum(ends) for ends in zip(*_halves(pads), strict=True)]
        if all(total >= 0 for total in totals):
            continue
        whole = [0 if total < 0 else pad for pad, total in zip(pads, totals * 2, strict=True)]
        values = {"pads": whole, "output_padding": [max(0, -total) for total in totals]}
        kept = [attribute for attribute in node.attribute if attribute.name not in values]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.attribute.extend(onnx.helper.make_attribute(*pair) for pair in values.items())
        changed = True
    return changed


def _halves(pads: list[int]) -> tuple[list[int], list[int]]:
    """Padding at the beginning of each axis, and at its end."""
    return pads[: len(pads) // 2], pads[len(pads) // 2 :]


def remove_dangling_outputs(path: str) -> None:
    """Rewrite an OpenVINO model without outputs that the Keras model does not have.

    What is computed inside a layer and used by nobody (the last state of an LSTM) becomes an
    output of the file.

    Args:
        path: The `.xml` file.
    """
    ov = require("openvino", "Exporting to OpenVINO")
    # The weights are about to be written over, so they must not be mapped from their file.
    core = ov.Core()
    core.set_property({"ENABLE_MMAP": False})
    model = core.read_model(path)
    # Names of inner tensors have the layers' scopes in front: "model/layer/op:0".
    dangling = [o for o in model.outputs if o.names and all("/" in name for name in o.names)]
    if dangling and len(dangling) < len(model.outputs):
        for output in dangling:
            model.remove_result(output.node)
        ov.serialize(model, path)
