"""Questions to handlers, and a look at the form of their answers.

Handlers are written by users too. An answer of the wrong form would fail far from its cause, or
not at all; here it is an error that names the layer and the handler. Whether an answer is true
is another matter: that is what `keras_sbp.testing.LayerHandlerContract` tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import keras
import numpy as np

from keras_sbp.program.builder import Builder
from keras_sbp.program.handler import LayerHandler, kind
from keras_sbp.program.program import Op, Tensor
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs, kept


def ask_values(handler: LayerHandler, op: Op, inputs: list[Known]) -> list[Known]:
    """Returns `handler.values(...)`, checked."""
    answer = Answer(handler, op, "values")
    results = answer.to(lambda: handler.values(op, inputs))
    answer.require_one_per(op.outputs, results, "output")
    for i, (tensor, known) in enumerate(zip(op.outputs, results, strict=True)):
        answer.require_arrays(tensor, known, f"of output {i}", np.dtype("float64"))
    return results


def ask_needs(
    handler: LayerHandler, op: Op, needed: list[Needs | None], inputs: list[Known]
) -> list[Needs | None]:
    """Returns `handler.needs(...)`, checked."""
    answer = Answer(handler, op, "needs")
    results = answer.to(lambda: handler.needs(op, needed, inputs))
    answer.require_one_per(op.inputs, results, "input")
    for i, (tensor, needs) in enumerate(zip(op.inputs, results, strict=True)):
        if needs is None:
            continue
        answer.require_arrays(tensor, needs, f"of input {i}", np.dtype(bool))
        for axis, keep in needs.items():
            if not keep.any():
                answer.wrong(
                    f"at least one unit along axis {axis} of input {i}, or None in place of the "
                    "dict where nothing of the input is needed",
                    "an array without any True",
                )
    return results


def ask_computes(handler: LayerHandler, op: Op, needed: list[Needs | None]) -> list[Needs | None]:
    """Returns `handler.computes(...)`, checked."""
    answer = Answer(handler, op, "computes")
    results = answer.to(lambda: handler.computes(op, needed))
    answer.require_one_per(op.outputs, results, "output")
    for i, (tensor, units) in enumerate(zip(op.outputs, results, strict=True)):
        if units is not None:
            answer.require_arrays(tensor, units, f"of output {i}", np.dtype(bool))
    return results


def ask_rebuild(
    handler: LayerHandler,
    op: Op,
    inputs: list[Slim | None],
    needed: list[Needs | None],
    build: Builder,
) -> list[Slim]:
    """Returns `handler.rebuild(...)`, checked."""
    answer = Answer(handler, op, "rebuild")
    results = answer.to(lambda: handler.rebuild(op, inputs, needed, build))
    answer.require_one_per(op.outputs, results, "output")
    for i, (tensor, needs, slim) in enumerate(zip(op.outputs, needed, results, strict=True)):
        _check_slim(answer, tensor, needs, slim, f"output {i}")
    return results


class Answer:
    """What a handler says to one question about one call; knows how to complain about it."""

    def __init__(self, handler: LayerHandler, op: Op, method: str) -> None:
        self._where = f"{method}() of handler {type(handler).__name__} for '{op.name}' ({kind(op)})"

    def to(self, question: Callable[[], Any]) -> Any:
        """Asks; an error that the handler raises gets a note that says where it happened."""
        try:
            return question()
        except Exception as error:
            error.add_note(f"This happened in {self._where}.")
            raise

    def wrong(self, expected: str, received: str) -> NoReturn:
        """Raises what is to be said of an answer of the wrong form."""
        raise ValueError(
            f"The answer of {self._where} has the wrong form. Expected: {expected}. "
            f"Received: {received}. Mend the handler; keras_sbp.testing.LayerHandlerContract "
            "tests it."
        )

    def require_one_per(self, tensors: list[Tensor], results: Any, what: str) -> None:
        """Requires a list as long as the list of inputs or outputs."""
        if not isinstance(results, list | tuple) or len(results) != len(tensors):
            length = f" of {len(results)}" if isinstance(results, list | tuple) else ""
            self.wrong(
                f"a list with one entry per {what}, that is {len(tensors)}",
                f"{type(results).__name__}{length}",
            )

    def require_arrays(self, tensor: Tensor, arrays: Any, of: str, dtype: np.dtype) -> None:
        """Requires a dict from axes of known size to arrays with one entry per unit."""
        if not isinstance(arrays, dict):
            self.wrong(f"a dict from axis to array {of}", f"{type(arrays).__name__}")
        for axis, array in arrays.items():
            self.require_axis(tensor, axis, of)
            is_array = isinstance(array, np.ndarray)
            size = tensor.shape[axis]
            if not is_array or array.dtype != dtype or array.shape != (size,):
                self.wrong(
                    f"a NumPy array of {dtype} of shape ({size},) for axis {axis} {of}",
                    f"{array.dtype} of shape {array.shape}" if is_array else type(array).__name__,
                )

    def require_axis(self, tensor: Tensor, axis: Any, of: str) -> None:
        """Requires an axis with units: counted from 0, not the batch, of known size."""
        axes = [a for a, size in enumerate(tensor.shape) if a > 0 and size is not None]
        if not isinstance(axis, int | np.integer) or axis not in axes:
            self.wrong(
                f"only axes of known size {of}, counted from 0 with the batch, so any of {axes} "
                f"for shape {tensor.shape}",
                f"axis {axis!r}",
            )


def _check_slim(answer: Answer, source: Tensor, needed: Needs | None, slim: Any, of: str) -> None:
    if not isinstance(slim, Slim):
        answer.wrong(f"a Slim for {of}; build.slim() makes one", type(slim).__name__)
    if needed is None:
        return  # nobody reads it
    if slim.source is not source:
        answer.wrong(f"a Slim that stands for {of}, op.outputs[i]", "one for another tensor")
    if not isinstance(slim.tensor, keras.KerasTensor):
        answer.wrong(f"a Slim of a Keras tensor for {of}", f"one of {type(slim.tensor).__name__}")
    of = f"of {of}"
    answer.require_arrays(source, slim.carried, of, np.dtype(bool))
    answer.require_arrays(source, slim.scale, of, np.dtype("float64"))
    for axis in slim.rescale:
        answer.require_axis(source, axis, of)
    expected = tuple(
        int(slim.carries(axis).sum()) if axis in slim.carried else size
        for axis, size in enumerate(source.shape)
    )
    received = tuple(slim.tensor.shape)
    if not _fits(expected, received) or slim.tensor.dtype != source.dtype:
        answer.wrong(
            f"a tensor {of} that has the units which the Slim says it carries, that is shape "
            f"{expected}, and dtype {source.dtype}",
            f"shape {received}, dtype {slim.tensor.dtype}",
        )
    for axis, carried in slim.carried.items():
        keep = kept(needed, axis, carried.size)
        missing = np.flatnonzero(keep & ~carried)
        if missing.size:
            answer.wrong(
                f"a Slim {of} that carries every needed unit",
                f"one without {missing.size} of {keep.sum()} along axis {axis}, the first is "
                f"unit {missing[0]}",
            )


def _fits(expected: tuple, received: tuple) -> bool:
    """Tells whether shapes agree where both are known."""
    return len(expected) == len(received) and all(
        n is None or m is None or n == m for n, m in zip(expected, received, strict=True)
    )
