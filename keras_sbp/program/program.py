"""A model as a program: tensors, and a flat list of calls on them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np


@dataclass(eq=False)
class Tensor:
    """One value of the program. `shape` includes the batch axis; unknown sizes are None."""

    shape: tuple[int | None, ...]
    dtype: str
    masked: bool = False

    @property
    def rank(self) -> int:
        """The number of axes, batch included."""
        return len(self.shape)

    def size(self, axis: int) -> int:
        """Returns the number of units along an axis.

        Raises:
            ValueError: The size of the axis is unknown.
        """
        size = self.shape[axis]
        if size is None:
            raise ValueError(
                f"Axis {axis} of a tensor of shape {self.shape} has no known size, and so no "
                "units that could be told apart. Expected an axis whose size is fixed in the "
                "model's Input."
            )
        return size


@dataclass(eq=False)
class Op:
    """One call of an operation.

    Attributes:
        operation: a Keras layer, an operation of `keras.ops`, or one of this package's own
            (`Cast`, `Constant`, `Scale`).
        args, kwargs: as in the call, with `Tensor`s where Keras had its own.
        outputs: what the call returns, flat.
        path: the layers that were unfolded to find this call, each followed by a slash.
        not_unfolded: why an unknown layer stays whole; "" where that was not asked.
        shared: the operation has weights and is called more than once.
        inputs: the tensors among the arguments, in order.
    """

    operation: Any
    args: tuple
    kwargs: dict[str, Any]
    outputs: list[Tensor]
    path: str = ""
    not_unfolded: str = ""
    shared: bool = False
    inputs: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.inputs = tensors_in((self.args, self.kwargs))

    @property
    def name(self) -> str:
        """The operation's name behind the names of the layers around it."""
        return self.path + self.operation.name


@dataclass(frozen=True)
class Cast:
    """The change of dtype that a nested model applies to its inputs."""

    dtype: str
    name: str


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that does not depend on the input; its call has no arguments.

    Attributes:
        value: the numbers, the same for every example; without the batch axis.
        name: of what computed it.
    """

    value: np.ndarray
    name: str


@dataclass(frozen=True, eq=False)
class Scale:
    """Multiplies units by fixed numbers ≥ 0; 0 removes the unit.

    It stands for a gate whose decision has been made. One with all factors 1 marks where a gate
    would stand.

    Attributes:
        axis: the unit axis (negative counts from the end), or None for the whole tensor.
        factor: float64, shape (units,); (1,) for the whole tensor.
        name: for messages.
    """

    axis: int | None
    factor: np.ndarray
    name: str

    @property
    def units(self) -> int:
        """How many units there are."""
        return self.factor.size


@dataclass(eq=False)
class Program:
    """A traced model.

    Attributes:
        model: the Keras model that was traced.
        inputs, outputs: flat lists, in the order of `model.inputs` and `model.outputs`.
        input_structure, output_structure: the nested structures that the model is called with
            and returns, of Keras tensors.
        ops: the calls, each after those it reads from.
    """

    model: keras.Model
    inputs: list[Tensor]
    outputs: list[Tensor]
    input_structure: Any
    output_structure: Any
    ops: list[Op]


def is_tensor(leaf: Any) -> bool:
    """Tells whether something is a tensor of a program."""
    return isinstance(leaf, Tensor)


def tensors_in(structure: Any) -> list[Tensor]:
    """Returns the tensors of a nested structure, in order."""
    return [leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, Tensor)]


def reading(op: Op, inputs: list[Tensor]) -> Op:
    """Returns the same call on other tensors."""
    if inputs == op.inputs:
        return op
    following = iter(inputs)
    args, kwargs = keras.tree.map_structure(
        lambda leaf: next(following) if is_tensor(leaf) else leaf, (op.args, op.kwargs)
    )
    return replace(op, args=args, kwargs=kwargs)
