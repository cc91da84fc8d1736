"""One call of a layer by itself, put to its handler on random knowledge and needs."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from keras_sbp.comparing.full_precision import full_precision
from keras_sbp.program.builder import Builder
from keras_sbp.program.checks import ask_needs, ask_rebuild, ask_values
from keras_sbp.program.handler import LayerHandler
from keras_sbp.program.program import Op
from keras_sbp.program.slim import Slim
from keras_sbp.program.units import Known, Needs
from keras_sbp.testing import draws


@dataclass
class Trial:
    """A traced call, its handler, and a source of random numbers.

    Attributes:
        model: the call alone; its inputs and outputs are those of the call.
        draw: makes random numbers for an input.
        constants: what constant units may hold.
        number: of the trial; it decides which kinds of knowledge and needs are drawn.
        where: for messages.
    """

    op: Op
    handler: LayerHandler
    model: keras.Model
    draw: draws.Draw
    constants: Sequence[float]
    rng: np.random.Generator
    number: int
    where: str
    known: list[Known] = field(init=False)
    needed: list[Needs | None] = field(init=False)

    def __post_init__(self) -> None:
        rng, number, constants = self.rng, self.number, self.constants
        self.known = [draws.knowledge(rng, x, constants, number) for x in self.op.inputs]
        self.needed = [draws.needs(rng, x, number) for x in self.op.outputs]
        if len(self.needed) > 1 and rng.random() < 0.5:
            self.needed[int(rng.integers(len(self.needed)))] = None

    def values(self) -> list[Known]:
        """Asks the handler what is known of the outputs."""
        return ask_values(self.handler, self.op, self.known)

    def needs(self) -> list[Needs | None]:
        """Asks the handler what is needed of the inputs."""
        return ask_needs(self.handler, self.op, self.needed, self.known)

    def inputs(self) -> list[np.ndarray]:
        """Draws inputs that hold the known constants."""
        pairs = zip(self.op.inputs, self.known, strict=True)
        return [draws.array(self.rng, tensor, known, self.draw) for tensor, known in pairs]

    def run(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """Returns the layer's own outputs."""
        return run(self.model, inputs)

    def rebuild(self, *, extra: bool = True) -> Rebuilt:
        """Asks the handler to make the call anew, on slimmed inputs.

        Args:
            extra: whether inputs may carry more than what is needed, and pending scales.
        """
        op = self.op
        known = dict(zip(op.inputs, self.known, strict=True))
        known |= zip(op.outputs, self.values(), strict=True)
        needs = self.needs()
        edges = {(op, i): each for i, each in enumerate(needs) if each is not None}
        sources = [self._source(i, each, extra) for i, each in enumerate(needs)]
        slims = [None if source is None else source.given for source in sources]
        results = ask_rebuild(self.handler, op, slims, self.needed, Builder(known, edges))
        return Rebuilt(sources, results, [needs is not None for needs in self.needed])

    def _source(self, index: int, needs: Needs | None, extra: bool) -> Source | None:
        if needs is None:
            return None
        tensor, known = self.op.inputs[index], self.known[index]
        if not extra:
            return Source.of(Slim(tensor, _input(tensor, needs), known, dict(needs)))
        carried = draws.more(self.rng, needs)
        slim = Slim(tensor, _input(tensor, carried), known, carried)
        slim.scale = draws.scales(self.rng, tensor, known, carried)
        axes = draws.unit_axes(tensor)
        if not axes or "float" not in tensor.dtype or self.rng.random() < 0.5:
            return Source.of(slim)
        return Source.with_dial(slim, int(self.rng.choice(axes)))


@dataclass
class Source:
    """A slimmed input.

    Attributes:
        entry: where its numbers are fed.
        slim: what the handler may use of it.
        given: a copy for the handler.
    """

    entry: keras.KerasTensor
    slim: Slim
    given: Slim = field(init=False)

    def __post_init__(self) -> None:
        scale, carried, known = copy.deepcopy((self.slim.scale, self.slim.carried, self.slim.known))
        self.given = replace(self.slim, scale=scale, carried=carried, known=known)

    @classmethod
    def of(cls, slim: Slim) -> Source:
        """The numbers as they are fed."""
        return cls(slim.tensor, slim)

    @classmethod
    def with_dial(cls, slim: Slim, axis: int) -> Source:
        """The numbers times weights along an axis, which the handler may change."""
        dial = Dial(axis, dtype=slim.tensor.dtype)

        def rescale(factor: np.ndarray) -> None:
            dial.factor.assign(dial.factor * factor[slim.carries(axis)])

        return cls(slim.tensor, replace(slim, tensor=dial(slim.tensor), rescale={axis: rescale}))

    def is_unchanged(self) -> bool:
        """Tells whether the handler left the slim as it was: other layers read it too."""
        parts = [(s.tensor, s.scale, s.carried, s.known) for s in (self.slim, self.given)]
        return parts[0][0] is parts[1][0] and same(parts[0][1:], parts[1][1:])

    def feed(self, numbers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns what to feed so that the tensor stands for these original numbers."""
        new = numbers.astype(np.float64) if self.slim.scale else numbers
        for axis, scale in self.slim.scale.items():
            scale = draws.along(scale, axis, numbers.ndim)
            # What is multiplied by 0 later may be anything.
            anything = rng.standard_normal(numbers.shape)
            new = np.where(scale == 0, anything, new / np.where(scale == 0, 1.0, scale))
        return draws.restricted(new, self.slim.carried).astype(numbers.dtype)


@dataclass
class Rebuilt:
    """A call that was made anew.

    Attributes:
        is_needed: which of the outputs anybody reads.
    """

    sources: list[Source | None]
    slims: list[Slim]
    is_needed: list[bool]

    @functools.cached_property
    def model(self) -> keras.Model:
        """Returns the new call alone."""
        entries = [source.entry for source in self.sources if source is not None]
        return keras.Model(entries, [slim.tensor for slim in self.needed_slims().values()])

    def needed_slims(self) -> dict[int, Slim]:
        """Returns the outputs that anybody reads, by their number."""
        return {i: slim for i, slim in enumerate(self.slims) if self.is_needed[i]}

    def run(self, inputs: list[np.ndarray], rng: np.random.Generator) -> dict[int, np.ndarray]:
        """Returns what the new call makes of the original inputs, pending scales included."""
        pairs = zip(self.sources, inputs, strict=True)
        fed = [source.feed(numbers, rng) for source, numbers in pairs if source is not None]
        outputs = dict(zip(self.needed_slims(), run(self.model, fed), strict=True))
        for i, slim in self.needed_slims().items():
            for axis, scale in slim.scale.items():
                factor = draws.along(scale[slim.carries(axis)], axis, outputs[i].ndim)
                outputs[i] = outputs[i] * factor
        return outputs


class Dial(keras.layers.Layer):
    """Multiplies by weights along an axis."""

    def __init__(self, axis: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Makes one weight per unit."""
        self.factor = self.add_weight(
            shape=(shape[self.axis],), initializer="ones", dtype=self.compute_dtype, name="factor"
        )
        self.shape = [-1 if a == self.axis else 1 for a in range(len(shape))]

    def call(self, x: Any) -> Any:
        """Multiplies."""
        return x * keras.ops.reshape(self.factor, self.shape)


@full_precision()
def run(model: keras.Model, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Returns a model's outputs at inference, as a flat list in float64."""
    tensors = [keras.ops.convert_to_tensor(each) for each in inputs]
    outputs = keras.tree.flatten(model(tensors, training=False))
    return [keras.ops.convert_to_numpy(x).astype(np.float64) for x in outputs]


def same(one: Any, other: Any) -> bool:
    """Tells whether nested structures hold the same numbers; NaN is the same as NaN."""
    try:
        np.testing.assert_equal(one, other)
    except AssertionError:
        return False
    return True


def _input(tensor: Any, carried: Needs) -> keras.KerasTensor:
    shape = [int(carried[a].sum()) if a in carried else n for a, n in enumerate(tensor.shape)]
    return keras.Input(batch_shape=shape, dtype=tensor.dtype)
