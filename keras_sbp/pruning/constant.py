"""What would not depend on the input any more."""

from __future__ import annotations

from keras_sbp.graph import Analysis, Graph, Tensor
from keras_sbp.graph.units import wholly_constant


def constant_tensors(graph: Graph, analysis: Analysis) -> set[Tensor]:
    """Returns constants, and whatever is computed from them alone."""
    constant: set[Tensor] = set()
    for op in graph.ops:
        computed_from_constants = all(tensor in constant for tensor in op.inputs)
        for tensor in op.outputs:
            if computed_from_constants or wholly_constant(analysis.known[tensor]) is not None:
                constant.add(tensor)
    return constant
