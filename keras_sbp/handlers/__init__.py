"""What the author of a handler imports.

`LayerHandler` is what a handler is made from, `UnitWise` its short form for layers that act on
each number alone, and `register_handler` makes one known. `Op` and `Tensor` are calls and values
of the traced network, `Known` and `Needs` what is said about a tensor's units (`constants`, `kept`
and `tidy` read and write them), `Slim` and `Builder` what a new network is made with, and
`LinearMap` what least squares is told of a layer.
`keras_sbp.testing.LayerHandlerContract` tests a handler.

The handlers of the package stand beside, one file per family; importing this registers them.
"""

from keras_sbp.handlers import constant, gate, layers, ops  # noqa: F401 (this registers them)
from keras_sbp.handlers._unitwise import UnitWise
from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, register_handler
from keras_sbp.program.linear_map import LinearMap
from keras_sbp.program.program import Op, Tensor
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, constants, kept, tidy

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
