"""The contract passes a correct handler, and finds the fault of every wrong one."""

from __future__ import annotations

import pathlib
from dataclasses import replace

import keras
import numpy as np
import pytest

import keras_sbp.testing
from keras_sbp.handlers import LayerHandler, constants, register_handler, tidy
from keras_sbp.handlers.layers.dense_and_convolution import Dense as DenseHandler
from keras_sbp.testing import LayerHandlerContract

pytestmark = pytest.mark.usefixtures("own_registry")


class Swish(keras.layers.Layer):
    """x · sigmoid(slope · x), with a slope for each unit."""

    def build(self, shape):
        self.slope = self.add_weight(shape=shape[-1:], name="slope", initializer="ones")

    def call(self, x):
        return x * keras.ops.sigmoid(self.slope * x)


def last(op) -> int:
    return op.inputs[0].rank - 1


class Correct(LayerHandler):
    def values(self, op, inputs):
        slope = keras.ops.convert_to_numpy(op.operation.slope).astype("float64")
        zeros = {axis: np.where(c == 0, c, np.nan) for axis, c in inputs[0].items()}
        x = constants(inputs[0], last(op), slope.size)
        return [tidy(zeros | {last(op): x / (1 + np.exp(-slope * x))})]

    def needs(self, op, needed, inputs):
        if op.shared:
            return [{axis: keep for axis, keep in needed[0].items() if axis == last(op)}]
        return [needed[0]]

    def rebuild(self, op, inputs, needed, build):
        axis = last(op)
        slim = build.settle(inputs[0], () if op.shared else {axis})
        layer = build.layer(op)
        first_call = not layer.built
        tensor = layer(slim.tensor)
        if first_call:
            slope = keras.ops.convert_to_numpy(op.operation.slope) * slim.scale_on(axis)
            layer.slope.assign(slope[slim.carries(axis)])
        return [build.slim(op.outputs[0], tensor, carried=slim.carried, scale=slim.scale)]


class Projection(keras.layers.Dense):
    def call(self, x):
        return super().call(x)


class SwishContract(LayerHandlerContract):
    input_shapes = ((4, 6),)
    gated_inputs = (-1, 1)
    gated_outputs = (-1, 1)

    def make_layer(self):
        return Swish()


class ProjectionContract(LayerHandlerContract):
    def make_layer(self):
        return Projection(5, activation="relu")


@pytest.mark.parametrize("check", LayerHandlerContract.checks())
@pytest.mark.parametrize(
    ("cls", "handler", "contract"),
    [(Swish, Correct, SwishContract), (Projection, DenseHandler, ProjectionContract)],
)
def test_correct_handler_passes(cls: type, handler: type, contract: type, check: str) -> None:
    register_handler(cls)(handler)
    getattr(contract(), check)()


def test_a_subclass_names_its_own_checks_too() -> None:
    class More(SwishContract):
        def test_more(self):
            pass

    assert set(More.checks()) == {*SwishContract.checks(), "test_more"}
    assert len(SwishContract.checks()) == 12


class WrongConstants(Correct):
    """Constants do not pass unchanged."""

    def values(self, op, inputs):
        return inputs


class ConstantsOfWrongUnits(Correct):
    def values(self, op, inputs):
        return [{axis: c[::-1].copy() for axis, c in super().values(op, inputs)[0].items()}]


class NeedsTooLittle(Correct):
    def needs(self, op, needed, inputs):
        needs = {axis: keep.copy() for axis, keep in super().needs(op, needed, inputs)[0].items()}
        for keep in needs.values():
            keep[np.flatnonzero(keep)[1:2]] = False
        return [needs]


class NeedsOtherAxis(Correct):
    """What is needed along one axis is not needed along another."""

    def needs(self, op, needed, inputs):
        sizes = op.inputs[0].shape
        return [{3 - a: np.resize(keep, sizes[3 - a]) | False for a, keep in needed[0].items()}]


class ForgetsScales(Correct):
    def rebuild(self, op, inputs, needed, build):
        return super().rebuild(op, [replace(inputs[0], scale={})], needed, build)


class PassesScalesOn(Correct):
    """σ(s·x) is not σ(x), so a scale may not pass without changing the slope."""

    def rebuild(self, op, inputs, needed, build):
        slim = super().rebuild(op, [replace(inputs[0], scale={})], needed, build)[0]
        return [replace(slim, scale=inputs[0].scale)]


class PassesRescaleOn(Correct):
    def rebuild(self, op, inputs, needed, build):
        slim = super().rebuild(op, inputs, needed, build)[0]
        return [replace(slim, rescale=inputs[0].rescale)]


class ScalesOfWrongUnits(Correct):
    def rebuild(self, op, inputs, needed, build):
        slim = super().rebuild(op, inputs, needed, build)[0]
        return [replace(slim, scale={a: scale[::-1].copy() for a, scale in slim.scale.items()})]


class FirstSlopes(Correct):
    """Takes the first weights in place of those of the carried units."""

    def rebuild(self, op, inputs, needed, build):
        slims = super().rebuild(op, inputs, needed, build)
        layer = build.new_layers[id(op.operation)]
        slope = keras.ops.convert_to_numpy(op.operation.slope)
        layer.slope.assign(slope[: layer.slope.shape[0]])
        return slims


class ChangesTheLayer(Correct):
    def rebuild(self, op, inputs, needed, build):
        slims = super().rebuild(op, inputs, needed, build)
        op.operation.slope.assign(op.operation.slope * 2)
        return slims


class ChangesTheNeeds(Correct):
    def needs(self, op, needed, inputs):
        for keep in needed[0].values():
            keep[:] = True
        return super().needs(op, needed, inputs)


class ChangesTheSlim(Correct):
    """Other readers of the tensor get it as well."""

    def rebuild(self, op, inputs, needed, build):
        slims = super().rebuild(op, inputs, needed, build)
        inputs[0].scale.clear()
        return slims


class CallsTheOldLayer(Correct):
    def rebuild(self, op, inputs, needed, build):
        slim = build.settle(inputs[0])
        if any(not slim.carries(axis).all() for axis in slim.carried):
            return super().rebuild(op, [slim], needed, build)
        return [build.slim(op.outputs[0], op.operation(slim.tensor))]


class IgnoresShared(Correct):
    """Absorbs the first call's scales into the weights of all calls."""

    def rebuild(self, op, inputs, needed, build):
        axis = last(op)
        slim = build.settle(inputs[0], {axis})
        layer = build.layer(op)
        first_call = not layer.built
        tensor = layer(slim.tensor)
        if first_call:
            slope = keras.ops.convert_to_numpy(op.operation.slope) * slim.scale_on(axis)
            layer.slope.assign(slope[slim.carries(axis)])
        return [build.slim(op.outputs[0], tensor, carried=slim.carried, scale=slim.scale)]


class NewLayerForEveryCall(Correct):
    def rebuild(self, op, inputs, needed, build):
        build.new_layers.pop(id(op.operation), None)
        return super().rebuild(op, inputs, needed, build)


class KeepsEverything(Correct):
    def needs(self, op, needed, inputs):
        return [{}]


class ForgetsWhatItCarries(Correct):
    def rebuild(self, op, inputs, needed, build):
        slim = super().rebuild(op, inputs, needed, build)[0]
        return [replace(slim, carried={})]


class Refuses(Correct):
    def refuses(self, op):
        return "it is Tuesday"


VALUES = "test_values_are_true"
NEEDS = "test_needs_suffice"
REBUILD = "test_rebuilt_call_computes_the_same"
RESCALE = "test_rebuilt_call_can_be_rescaled"
UNCHANGED = "test_nothing_is_changed"
INPUTS = "test_inputs_get_narrower"
FACTS = "test_facts_follow_units"
TWICE = "test_layer_called_twice_stays_one_layer"


@pytest.mark.parametrize(
    ("handler", "test", "message"),
    [
        (WrongConstants, VALUES, "says that unit . along axis . of output 0 is"),
        (ConstantsOfWrongUnits, VALUES, "says that unit"),
        (NeedsTooLittle, NEEDS, "when inputs change that needs.. can do without"),
        (NeedsOtherAxis, NEEDS, "when inputs change that needs.. can do without"),
        (ForgetsScales, REBUILD, "output 0 of the rebuilt call differs .* pending scales"),
        (PassesScalesOn, REBUILD, "output 0 of the rebuilt call differs"),
        (ScalesOfWrongUnits, REBUILD, "output 0 of the rebuilt call differs"),
        (FirstSlopes, REBUILD, "output 0 of the rebuilt call differs"),
        (PassesRescaleOn, RESCALE, "after rescale along axis"),
        (ChangesTheLayer, UNCHANGED, "the weights of 'swish.*' have changed"),
        (ChangesTheNeeds, UNCHANGED, "the knowledge or needs given to the handler have changed"),
        (ChangesTheSlim, UNCHANGED, "a Slim given to the handler has changed"),
        (CallsTheOldLayer, UNCHANGED, "the new network calls the old 'swish.*'; make a new layer"),
        (IgnoresShared, TWICE, "differs from the gated one .*2 calls"),
        (NewLayerForEveryCall, TWICE, "Two calls of one Swish have become 2 layers"),
        (KeepsEverything, INPUTS, "needs.. asks for all of them"),
        (ForgetsWhatItCarries, REBUILD, "rebuild.. of handler ForgetsWhatItCarries .* wrong form"),
        (Refuses, "test_call_is_understood", "'swish.*' is opaque: it is Tuesday"),
    ],
    ids=lambda x: x.__name__ if isinstance(x, type) else "",
)
def test_fault_of_a_layer_with_weights(handler: type, test: str, message: str) -> None:
    register_handler(Swish)(handler)
    with pytest.raises((AssertionError, ValueError), match=message):
        getattr(SwishContract(), test)()


class ForgetsConstants(DenseHandler):
    """What was removed was no 0, and is missing in the bias."""

    def rebuild(self, op, inputs, needed, build):
        inputs[0].known = {}
        return super().rebuild(op, inputs, needed, build)


class ComputesEverything(DenseHandler):
    def rebuild(self, op, inputs, needed, build):
        return super().rebuild(op, inputs, [{}], build)

    def needs(self, op, needed, inputs):
        return super().needs(op, [{}], inputs)


class CountsTheLargestLayer(DenseHandler):
    """As if the layer were always as wide as the user has made it."""

    def macs(self, op):
        return 6 * 5


class CountsHalves(DenseHandler):
    def macs(self, op):
        return super().macs(op) / 2


class RowsByInputs(DenseHandler):
    def kernel_rows(self, op, axis):
        return super().kernel_rows(op, axis).T


class RowsInReverse(DenseHandler):
    def kernel_rows(self, op, axis):
        return super().kernel_rows(op, axis)[::-1]


class UnitsAlongTheBatch(DenseHandler):
    def unit_axes(self, op):
        return [0]


class RescalesWhateverTheActivation(DenseHandler):
    def rebuild(self, op, inputs, needed, build):
        slim = super().rebuild(op, inputs, needed, build)[0]
        layer = build.new_layers[id(op.operation)]

        def rescale(factor):
            layer.kernel.assign(layer.kernel * factor[slim.carries(1)])

        return [replace(slim, rescale={1: rescale})]


@pytest.mark.parametrize(
    ("handler", "test", "message"),
    [
        (ForgetsConstants, REBUILD, "output 0 of the rebuilt call differs"),
        (ComputesEverything, "test_outputs_get_narrower", "computes all of them"),
        (RescalesWhateverTheActivation, RESCALE, "after rescale along axis 1 of output 0"),
        (CountsTheLargestLayer, FACTS, "macs.. must fall where units go: it says 30, and 30"),
        (CountsHalves, FACTS, "macs.. of handler CountsHalves .* an integer that is at least 0"),
        (RowsByInputs, FACTS, "one row for each of 5 units along axis 1, and its shape is .6, 5."),
        (RowsInReverse, FACTS, "the new layer has other rows than theirs"),
        (UnitsAlongTheBatch, FACTS, "a list of axes of output 0, each from 1 to 1"),
    ],
    ids=lambda x: x.__name__ if isinstance(x, type) else "",
)
def test_fault_of_a_layer_that_sums(handler: type, test: str, message: str) -> None:
    register_handler(Projection)(handler)
    with pytest.raises((AssertionError, ValueError), match=message):
        getattr(ProjectionContract(), test)()


def test_layer_made_of_layers_needs_no_handler() -> None:
    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.first, self.second = keras.layers.Dense(4), keras.layers.Dense(3)

        def build(self, shape):
            self.first.build(shape)
            self.second.build((*shape[:-1], 4))

        def call(self, x):
            return self.second(self.first(x))

    class BlockContract(LayerHandlerContract):
        def make_layer(self):
            return Block()

    with pytest.raises(AssertionError, match="made of layers is unfolded and needs no handler"):
        BlockContract().test_call_is_understood()


def test_layer_without_a_handler() -> None:
    with pytest.raises(AssertionError, match="'swish.*' is opaque: no handler for Swish"):
        SwishContract().test_call_is_understood()


def test_gated_axis_that_is_not_there() -> None:
    class Wrong(SwishContract):
        gated_inputs = (3,)

    register_handler(Swish)(Correct)
    with pytest.raises(AssertionError, match="nothing has several units along axis 3"):
        Wrong().test_inputs_get_narrower()


def test_contract_must_say_how_to_make_the_layer() -> None:
    with pytest.raises(TypeError, match="make_layer"):
        LayerHandlerContract()


def test_pytest_is_not_needed() -> None:
    for path in pathlib.Path(keras_sbp.testing.__file__).parent.glob("*.py"):
        assert "import pytest" not in path.read_text()
