"""How one handled class is put to the contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_sbp.testing import LayerHandlerContract


@dataclass
class Case:
    """What the contract asks for; see `LayerHandlerContract`.

    Attributes:
        make: makes a layer; None for an operation of `keras.ops`, which `call` makes.
        call: called with the input tensors in place of the layer.
        lowest, highest: where a function is defined on some numbers only, these.
    """

    make: Callable[[], keras.layers.Layer] | None = None
    shapes: Sequence[tuple] = ((4, 6),)
    dtypes: Sequence[str] | None = None
    inputs: Sequence[int] = (-1,)
    outputs: Sequence[int] = (-1,)
    policies: Sequence[str] = ("float64", "float32", "mixed_float16")
    call: Callable | None = None
    batch: int | None = None
    constants: Sequence[float] = LayerHandlerContract.constants
    lowest: float | None = None
    highest: float | None = None


class TableContract(LayerHandlerContract):
    """The contract of one case."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.input_shapes, self.input_dtypes = case.shapes, case.dtypes
        self.gated_inputs, self.gated_outputs = case.inputs, case.outputs
        self.dtype_policies, self.constants = case.policies, case.constants

    def make_layer(self) -> Any:
        return self.case.make() if self.case.make else None

    def call(self, layer: Any, inputs: list) -> Any:
        return self.case.call(*inputs) if self.case.call else super().call(layer, inputs)

    def make_inputs(self, policy: str) -> list[keras.KerasTensor]:
        inputs = super().make_inputs(policy)
        if self.case.batch is None:
            return inputs
        return [keras.Input(x.shape[1:], self.case.batch, x.dtype) for x in inputs]

    def draw(self, rng: np.random.Generator, shape: tuple, dtype: str) -> np.ndarray:
        if self.case.lowest is None:
            return super().draw(rng, shape, dtype)
        return rng.uniform(self.case.lowest, self.case.highest, shape).astype(dtype)
