"""A model as TensorFlow's graph: what converters see of it."""

from __future__ import annotations

from typing import Any

import keras

from keras_sbp.deploy.packages import require


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
