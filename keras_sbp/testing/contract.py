"""What every handler must fulfil, as tests that are inherited."""

from __future__ import annotations

import abc
import functools
import unittest
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_sbp.program import trace
from keras_sbp.program.handler import LayerHandler, find_handler
from keras_sbp.program.program import Op
from keras_sbp.testing import claims, facts, narrowing
from keras_sbp.testing.networks import (
    KEEPS,
    Network,
    gated_network,
    require_shared,
    same_function,
    survives_saving,
)
from keras_sbp.testing.policies import input_dtype, is_available, under
from keras_sbp.testing.snapshot import Snapshot
from keras_sbp.testing.trial import Trial


class LayerHandlerContract(abc.ABC):
    """Tests of a handler: subclass it in a test file, say how to make the layer, run pytest.

    The tests put the handler's answers beside what the layer computes, on random weights, inputs,
    constants and needs, in single and in double precision. Then they prune small networks around
    the layer. Every test says in its message what was wrong and with which random numbers.

    Layers with noise are compared at inference. Inputs are random numbers: override `draw` where
    the layer wants others, and `randomise` where not every number can be a weight.

    Attributes:
        input_shapes: the shapes of the tensors that the layer is called with, without the batch
            axis; None for sizes that are unknown.
        input_dtypes: their dtypes; "float" stands for that of the dtype policy.
        gated_inputs: axes of the inputs along which units go when they are 0. () if none can.
        gated_outputs: axes of the outputs along which units go when nobody needs them.
        constants: what constant units hold. Where the layer jumps at one of them, take another:
            rounding would show.
        dtype_policies: the policies to test under.
        trials: how many random trials a test makes.
        keeps: what gates keep in the networks that are pruned: "all", "half" or "one" unit.

    Example:

    ```python
    from keras_sbp.testing import LayerHandlerContract


    class TestSquare(LayerHandlerContract):
        input_shapes = [(4, 6)]

        def make_layer(self):
            return Square()
    ```
    """

    input_shapes: Sequence[tuple[int | None, ...]] = ((6,),)
    input_dtypes: Sequence[str] | None = None
    gated_inputs: Sequence[int] = (-1,)
    gated_outputs: Sequence[int] = (-1,)
    constants: Sequence[float] = (0.0, 0.4, -1.3)
    dtype_policies: Sequence[str] = ("float64", "float32")
    trials: int = 12
    keeps: Sequence[str] = KEEPS

    @classmethod
    def checks(cls) -> tuple[str, ...]:
        """Returns the names of all tests, for runners that give each an id of its own."""
        return tuple(name for name in dir(cls) if name.startswith("test_"))

    @abc.abstractmethod
    def make_layer(self) -> keras.layers.Layer:
        """Returns a new layer, with other settings than the defaults where that is harder."""

    def call(self, layer: keras.layers.Layer, inputs: list[keras.KerasTensor]) -> Any:
        """Calls the layer, with one tensor or with a list of several."""
        return layer(inputs[0] if len(inputs) == 1 else inputs)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Returns random numbers for an input: normal ones, or 0 and 1 for integers."""
        if "float" in dtype:
            return rng.standard_normal(shape).astype(dtype)
        return rng.integers(0, 2, shape).astype(dtype)

    def randomise(self, layer: keras.layers.Layer, rng: np.random.Generator) -> None:
        """Gives the layer random weights; some slices of them are 0."""
        for variable in getattr(layer, "weights", ()):
            if "float" not in variable.dtype:
                continue
            value = rng.normal(0, 0.7, variable.shape)
            if "variance" in variable.path:
                value = rng.uniform(0.5, 1.5, variable.shape)
            elif value.ndim and rng.random() < 0.5:
                axis = int(rng.integers(value.ndim))
                np.moveaxis(value, axis, 0)[rng.integers(value.shape[axis])] = 0.0
            variable.assign(value)

    # The tests ------------------------------------------------------------------------------

    def test_call_is_understood(self) -> None:
        """The layer has a handler, and the handler does not refuse the call."""
        for number, _ in enumerate(self.dtype_policies):
            self._trial(number)

    def test_values_are_true(self) -> None:
        """What the handler knows of the outputs holds for every input."""
        for trial in self._trials():
            claimed = trial.values()
            for _ in range(2):
                claims.values_hold(trial, claimed, trial.run(trial.inputs()))

    def test_needs_suffice(self) -> None:
        """Needed outputs do not depend on inputs that the handler can do without."""
        for trial in self._trials():
            claims.needs_suffice(trial, trial.needs())

    def test_rebuilt_call_computes_the_same(self) -> None:
        """The new call on slimmed inputs gives what the layer gives."""
        for trial in self._trials():
            claims.rebuilt_is_the_same(trial, rescaled=False)

    def test_rebuilt_call_can_be_rescaled(self) -> None:
        """Where the handler offers to multiply an output, that is what happens."""
        for trial in self._trials():
            claims.rebuilt_is_the_same(trial, rescaled=True)

    def test_nothing_is_changed(self) -> None:
        """The handler leaves the layer and its arguments as they were."""
        for trial in self._trials():
            before = Snapshot.of(trial)
            before.require_unchanged(trial, trial.rebuild())

    def test_inputs_get_narrower(self) -> None:
        """Where all units but one are 0 along a gated axis, fewer units are needed."""
        for axis in self.gated_inputs:
            narrowing.inputs_get_narrower(self._trial(0), axis)

    def test_outputs_get_narrower(self) -> None:
        """Where one unit alone is needed along a gated axis, fewer units are computed."""
        for axis in self.gated_outputs:
            narrowing.outputs_get_narrower(self._trial(0), axis)

    def test_facts_follow_units(self) -> None:
        """Multiply-accumulates and rows of kernels are there, and go with their units."""
        for number in range(min(3, self.trials)):
            facts.kernels_have_a_row_per_unit(self._trial(number))
            for axis in self.gated_outputs:
                facts.facts_follow_units(self._trial(number), axis)

    def test_pruned_network_computes_the_same(self) -> None:
        """prune() is exact around the layer: nothing dropped, half, and one unit left."""
        for number, keep in enumerate(self.keeps):
            self._pruned(number, keep)

    def test_layer_called_twice_stays_one_layer(self) -> None:
        """prune() is exact around two calls of the layer, which go on sharing weights."""
        if not getattr(self._trial(0).op.operation, "weights", ()):
            return
        for number, keep in enumerate(self.keeps[:2]):
            network = gated_network(self, self._policy(number), number, keep, calls=2)
            small = same_function(network, self.draw)
            if small is not None:
                require_shared(network, small)

    def test_pruned_network_survives_saving(self) -> None:
        """The pruned network computes the same after saving and loading."""
        for number, keep in list(enumerate(self.keeps))[-1:]:
            network, small = self._pruned(number, keep)
            if small is not None:
                survives_saving(network, small, self.draw)

    # What they share ------------------------------------------------------------------------

    def make_inputs(self, policy: str) -> list[keras.KerasTensor]:
        """Returns new symbolic inputs for a call of the layer."""
        dtypes = self.input_dtypes or ["float"] * len(self.input_shapes)
        return [
            keras.Input(shape, dtype=input_dtype(dtype, policy))
            for shape, dtype in zip(self.input_shapes, dtypes, strict=True)
        ]

    @functools.cached_property
    def _calls(self) -> dict[str, tuple[Any, keras.Model, Op, LayerHandler]]:
        """The calls made so far, by dtype policy."""
        return {}

    def _policy(self, number: int) -> str:
        available = [policy for policy in self.dtype_policies if is_available(policy)]
        if not available:
            raise unittest.SkipTest(f"this backend computes in none of {self.dtype_policies}")
        return available[number % len(available)]

    def _trials(self) -> Iterator[Trial]:
        return (self._trial(number) for number in range(self.trials))

    def _trial(self, number: int) -> Trial:
        """Random trial number n, under the dtype policies by turns."""
        policy, rng = self._policy(number), np.random.default_rng(number)
        if policy not in self._calls:
            self._calls[policy] = self._call_under(policy)
        layer, model, op, handler = self._calls[policy]
        self.randomise(layer, rng)
        where = f"number {number}, {policy}"
        return Trial(op, handler, model, self.draw, self.constants, rng, number, where)

    def _call_under(self, policy: str) -> tuple[Any, keras.Model, Op, LayerHandler]:
        """Makes the layer and calls it once."""
        with under(policy):
            layer, inputs = self.make_layer(), self.make_inputs(policy)
            model = keras.Model(inputs, keras.tree.flatten(self.call(layer, inputs)))
        program = trace(model)
        if len(program.ops) != 1 or set(program.ops[0].inputs) != set(program.inputs):
            names = ", ".join(op.name for op in program.ops)
            raise AssertionError(
                f"Expected one call of a layer, on all inputs. Received the calls: {names}. "
                "A layer that is made of layers is unfolded and needs no handler."
            )
        op = program.ops[0]
        handler, reason = find_handler(op)
        if reason is not None:
            raise AssertionError(f"'{op.name}' is opaque: {reason}.")
        order = [program.inputs.index(tensor) for tensor in op.inputs]
        if order != sorted(order):
            model = keras.Model([model.inputs[i] for i in order], model.outputs)
        return layer, model, op, handler

    @functools.cached_property
    def _networks(self) -> dict[tuple[int, str], tuple[Network, keras.Model | None]]:
        """The gated networks made so far, with the small ones."""
        return {}

    def _pruned(self, number: int, keep: str) -> tuple[Network, keras.Model | None]:
        """Returns gated network number n, and what prune() makes of it after comparing both."""
        if (number, keep) not in self._networks:
            network = gated_network(self, self._policy(number), number, keep)
            self._networks[number, keep] = network, same_function(network, self.draw)
        return self._networks[number, keep]
