"""What the author of a handler imports.

`LayerHandler` is what a handler is made from, `UnitWise` its short form for layers that act on
each number alone, and `register_handler` makes one known. `Op` and `Tensor` are calls and values
of the traced network, `Known` and `Needs` what is said about a tensor's units (`constants`, `kept`
and `tidy` read and write them), `Slim` and `Builder` what a new network is made with, and
`LinearMap` what least squares is told of a layer.
`keras_sbp.testing.LayerHandlerContract` tests a handler.
"""

from keras_sbp.graph.builder import Builder
from keras_sbp.graph.handler import LayerHandler, register_handler
from keras_sbp.graph.handlers._unitwise import UnitWise
from keras_sbp.graph.linear_map import LinearMap
from keras_sbp.graph.slim import Slim
from keras_sbp.graph.trace import Op, Tensor
from keras_sbp.graph.units import Known, Needs, constants, kept, tidy

__all__ = [
    "Builder",
    "Known",
    "LayerHandler",
    "LinearMap",
    "Needs",
    "Op",
    "Slim",
    "Tensor",
    "UnitWise",
    "constants",
    "kept",
    "register_handler",
    "tidy",
]
