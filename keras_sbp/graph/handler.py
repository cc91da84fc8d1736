"""The extension interface: what one kind of layer does with units."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

import keras

from keras_sbp.graph import keras_internals
from keras_sbp.graph.registry import handler_of, handles, registered_classes, stock_class
from keras_sbp.graph.scale import Scale
from keras_sbp.graph.trace import Op
from keras_sbp.graph.units import Known, Needs

if TYPE_CHECKING:
    from keras_sbp.graph.builder import Builder
    from keras_sbp.graph.slim import Slim

__all__ = [
    "OPAQUE",
    "LayerHandler",
    "Opaque",
    "find_handler",
    "handles",
    "kind",
    "registered_classes",
    "stock_class",
]


class LayerHandler(abc.ABC):
    """Answers three questions about one call of a layer; see the module `units` for the types.

    Handlers hold no state: one instance serves every call of every layer of its class.
    """

    def refuses(self, op: Op) -> str | None:
        """Returns why this call must be left opaque, or None if it is understood."""
        return None

    @abc.abstractmethod
    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """What is known of each output's units at inference, given what is known of the inputs?

        Must be true for every input of the network. To know nothing (`{}`) is always right.
        """

    @abc.abstractmethod
    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Which units must each input carry, so that the needed output units can be computed?

        An entry of None means that the whole tensor is not needed.
        """

    @abc.abstractmethod
    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """Makes the same call on the slimmed inputs. Each carries at least what `needs` asked.

        The outputs must carry at least `needed`, and say what they carry.
        """


class Opaque(LayerHandler):
    """A call that is not understood: everything around it is kept whole."""

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """Nothing is known."""
        return [{} for _ in op.outputs]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Everything is needed."""
        return [{} for _ in op.inputs]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same operation with the same weights."""
        return build.repeat(op, [build.settle(slim) for slim in inputs])


OPAQUE = Opaque()


def find_handler(op: Op) -> tuple[LayerHandler, str | None]:
    """Returns the handler for a call and, where that is the opaque one, the reason."""
    stock = stock_class(op.operation)
    if stock is None:
        unfold = f", and it cannot be unfolded: {op.not_unfolded}" if op.not_unfolded else ""
        return OPAQUE, f"no handler for {kind(op)}{unfold}"
    handler = handler_of(stock)
    reason = _unusual_call(op) or handler.refuses(op)
    return (handler, None) if reason is None else (OPAQUE, reason)


def kind(op: Op) -> str:
    """Returns what to call the op's class: `x + y` is the operation Add, not the layer Add."""
    name = type(op.operation).__name__
    return name if isinstance(op.operation, keras.layers.Layer) else f"the operation {name}"


def _unusual_call(op: Op) -> str | None:
    if isinstance(op.operation, Scale):
        return None
    if any(tensor.masked for tensor in op.inputs):
        return "its input carries a Keras mask"
    if not isinstance(op.operation, keras.layers.Layer):
        return None
    if op.kwargs.get("training"):
        return "it is called with training=True"
    leaves = keras.tree.flatten((op.args, op.kwargs))
    if any(_is_stray_argument(leaf, op) for leaf in leaves):
        return "it is called with further arguments"
    if keras_internals.is_adapted_by_lora_or_quantised(op.operation):
        return "it is quantised or has LoRA weights"
    return None


def _is_stray_argument(leaf: Any, op: Op) -> bool:
    return not (leaf is None or leaf is False or any(leaf is tensor for tensor in op.inputs))
