"""The extension interface: what one kind of layer does with units."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import keras
import numpy as np

from keras_sbp import _keras
from keras_sbp.program.builder import Builder
from keras_sbp.program.linear_map import LinearMap
from keras_sbp.program.program import Cast, Constant, Op, Scale
from keras_sbp.program.registry import handler_of, register, registered_classes, stock_class
from keras_sbp.program.shapes import Shape, completed
from keras_sbp.program.slim import Slim
from keras_sbp.program.unfold import trains_by_default
from keras_sbp.program.units import Known, Needs


class LayerHandler(abc.ABC):
    """Answers questions about one call of a layer; see the module `units` for the types.

    `values`, `needs` and `rebuild` say what the call does with units. `macs`, `unit_axes`,
    `kernel_rows` and those behind them are facts of the layer, which are asked of calls that
    `refuses` leaves opaque as well; what they say by default is true of layers without a kernel.

    Handlers hold no state: one instance serves every call of every layer of its class.

    Attributes:
        on_each_number: of operations, whether each number of the result depends on the numbers
            at the same place alone, without jumps. Activation functions are made of such.
        serves_every_call: whether Keras masks, `training=True` and further arguments change
            nothing about the answers. Calls with such are opaque otherwise.
    """

    on_each_number: bool = False
    serves_every_call: bool = False

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

    def computes(self, op: Op, needed: list[Needs | None]) -> list[Needs | None]:
        """Which units does the call compute, so that each output has the needed ones?

        More than these where units depend on one another inside of the call, as those of a
        recurrent layer do. It is asked before a gate is put behind the call.
        """
        return needed

    @abc.abstractmethod
    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """Makes the same call on the slimmed inputs. Each carries at least what `needs` asked.

        The outputs must carry at least `needed`, and say what they carry.
        """

    def macs(self, op: Op) -> int:
        """How many multiply-accumulates does the call spend on one example?

        Unknown sizes count as 1, and so does the batch.
        """
        return 0

    def unit_axes(self, op: Op) -> list[int]:
        """Along which axes of the first output does the layer make units, by their own weights?

        By default along the last axis, or along that of the channels in the layer's
        `data_format`, where it has a weight with several axes.
        """
        rank = op.outputs[0].rank
        weights = getattr(op.operation, "weights", ())
        if rank < 2 or not any(len(weight.shape) > 1 for weight in weights):
            return []
        first = getattr(op.operation, "data_format", None) == "channels_first"
        return [1 if first else rank - 1]

    def kernel_rows(self, op: Op, axis: int) -> np.ndarray | None:
        """Which weights make each unit along an axis of the first output? Shape (units, ...).

        Rules such as `L1Norm` rank units by them. None where they do not fall into rows by units:
        such units stay.
        """
        return None

    def normalization_scale(self, op: Op) -> np.ndarray | None:
        """What does a normalization multiply each unit by, in float64? None if it is none."""
        return None

    def linear_map(self, op: Op) -> LinearMap | None:
        """How is the layer, but for its activation, rows of features times a matrix?

        Least squares finds the best weights of such layers. None if it is none.
        """
        return None

    def output_shapes(self, op: Op) -> list[Shape]:
        """Which shapes have the outputs, with as few unknown sizes as can be?

        By default those that Keras has recorded or can infer.
        """
        return completed(op)


Handler = TypeVar("Handler", bound=type[LayerHandler])


def register_handler(*classes: type, replace: bool = False) -> Callable[[Handler], Handler]:
    """Class decorator that makes a handler serve these layer classes.

    Subclasses of them are served too, while all they change is how they are constructed and
    described. The package registers its own handlers in the same way.

    Args:
        *classes: layer classes, or classes of `keras.ops` operations.
        replace: whether the handler may take the place of another one.

    Returns:
        The decorator, which gives the handler class back unchanged.

    Raises:
        TypeError: something registered is no layer class, or what is decorated is no complete
            subclass of `LayerHandler`.
        ValueError: a class has a handler already, and `replace` is False.

    Example:

    ```python
    from keras_sbp.handlers import UnitWise


    class Square(keras.layers.Layer):
        def call(self, x):
            return x * x


    @keras_sbp.register_handler(Square)
    class SquareHandler(UnitWise):
        def function(self, op):
            return op.operation.call

        def is_homogeneous(self, op):
            return False
    ```
    """
    _check_classes(classes, replace)

    def decorate(handler: Handler) -> Handler:
        _check_handler(handler)
        register(classes, handler())
        return handler

    return decorate


def _check_classes(classes: tuple[type, ...], replace: bool) -> None:
    known = (keras.Operation, Cast, Constant, Scale)
    wrong = [each for each in classes if not (isinstance(each, type) and issubclass(each, known))]
    if wrong or not classes:
        raise TypeError(
            "register_handler() must be told which layers the handler serves. Expected classes "
            f"of Keras layers or operations. Received: {wrong[0] if wrong else 'none'!r}. "
            "Use it as a decorator with classes, not with layers: "
            "@keras_sbp.register_handler(MyLayer)."
        )
    taken = [each for each in classes if each in registered_classes()]
    if taken and not replace:
        old = type(handler_of(taken[0]))
        raise ValueError(
            f"Layer class {taken[0].__name__} has a handler already: "
            f"{old.__module__}.{old.__qualname__}. Expected one handler per class. Pass "
            "replace=True to register_handler() to put another in its place."
        )


def _check_handler(handler: Any) -> None:
    if not isinstance(handler, type) or not issubclass(handler, LayerHandler):
        raise TypeError(
            "@register_handler decorates a class of handlers. Expected a subclass of "
            f"keras_sbp.LayerHandler. Received: {handler!r}."
        )
    if inspect.isabstract(handler):
        missing = ", ".join(f"{name}()" for name in sorted(handler.__abstractmethods__))
        raise TypeError(
            f"Handler {handler.__name__} is incomplete. Expected all abstract methods of "
            f"{handler.__mro__[1].__name__}. Received a class without {missing}. Define them."
        )


class Opaque(LayerHandler):
    """A call that is not understood: everything around it is kept whole."""

    def values(self, op: Op, inputs: list[Known]) -> list[Known]:
        """Nothing is known."""
        return [{} for _ in op.outputs]

    def needs(self, op: Op, needed: list[Needs | None], inputs: list[Known]) -> list[Needs | None]:
        """Everything is needed."""
        return [{} for _ in op.inputs]

    def computes(self, op: Op, needed: list[Needs | None]) -> list[Needs | None]:
        """Everything."""
        return [{} for _ in op.outputs]

    def rebuild(
        self, op: Op, inputs: list[Slim | None], needed: list[Needs | None], build: Builder
    ) -> list[Slim]:
        """The same operation with the same weights."""
        return build.repeat(op, [build.settle(slim) for slim in inputs if slim is not None])


OPAQUE = Opaque()


def find_handler(op: Op) -> tuple[LayerHandler, str | None]:
    """Returns the handler for a call and, where that is the opaque one, the reason."""
    stock = stock_class(op.operation)
    if stock is None:
        unfold = f", and it cannot be unfolded: {op.not_unfolded}" if op.not_unfolded else ""
        return OPAQUE, f"no handler for {kind(op)}{unfold}"
    handler = handler_of(stock)
    unusual = None if handler.serves_every_call else _unusual_call(op)
    reason = unusual or handler.refuses(op)
    return (handler, None) if reason is None else (OPAQUE, reason)


def kind(op: Op) -> str:
    """Returns what to call the op's class: `x + y` is the operation Add, not the layer Add."""
    name = type(op.operation).__name__
    return name if isinstance(op.operation, keras.layers.Layer) else f"the operation {name}"


def _unusual_call(op: Op) -> str | None:
    if any(0 in tensor.shape for tensor in [*op.inputs, *op.outputs]):
        return "one of its sizes is 0"
    if not isinstance(op.operation, keras.layers.Layer):
        return None
    if any(tensor.masked for tensor in op.inputs):
        return "its input carries a Keras mask"
    if op.kwargs.get("training") and not trains_by_default(op.operation):
        return "it is called with training=True"
    others = {name: value for name, value in op.kwargs.items() if name != "training"}
    leaves = keras.tree.flatten((op.args, others))
    if any(_is_stray_argument(leaf, op) for leaf in leaves):
        return "it is called with further arguments"
    if _keras.is_adapted_by_lora_or_quantised(op.operation):
        return "it is quantised or has LoRA weights"
    return None


def _is_stray_argument(leaf: Any, op: Op) -> bool:
    return not (leaf is None or leaf is False or any(leaf is tensor for tensor in op.inputs))
