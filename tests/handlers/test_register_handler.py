"""What may be registered as a handler, and what is said of the rest."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_sbp
from keras_sbp._keras import numpy_ops
from keras_sbp.handlers import LayerHandler, UnitWise, register_handler
from keras_sbp.program import registry
from keras_sbp.program.handler import find_handler
from keras_sbp.program.registry import registered_classes
from keras_sbp.program.trace import trace

pytestmark = pytest.mark.usefixtures("own_registry")


class Square(keras.layers.Layer):
    def call(self, x):
        return x * x


class SquareHandler(UnitWise):
    def function(self, op):
        return op.operation.call

    def is_homogeneous(self, op):
        return False


def test_registered_handler_is_used_and_given_back() -> None:
    assert register_handler(Square)(SquareHandler) is SquareHandler
    model = keras.Sequential([keras.Input((4,)), Square()])
    handler, reason = find_handler(trace(model).ops[0])
    assert (type(handler), reason) == (SquareHandler, None)


def test_public_names_are_the_ones_of_the_engine() -> None:
    assert keras_sbp.register_handler is register_handler
    assert keras_sbp.LayerHandler is LayerHandler


def test_several_classes_share_one_handler() -> None:
    class Cube(Square):
        def call(self, x):
            return x**3

    register_handler(Square, Cube)(SquareHandler)
    assert registry.handler_of(Square) is registry.handler_of(Cube)


def test_subclass_with_a_call_of_its_own_needs_a_handler_of_its_own() -> None:
    class Cube(Square):
        def call(self, x):
            return x**3

    class Renamed(Square):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)

    register_handler(Square)(SquareHandler)
    assert registry.stock_class(Cube()) is None
    assert registry.stock_class(Renamed()) is Square


def test_own_handler_for_a_subclass_of_a_stock_layer() -> None:
    class Twice(keras.layers.Dense):
        def call(self, x):
            return 2 * super().call(x)

    assert registry.stock_class(Twice(3)) is None
    register_handler(Twice)(SquareHandler)
    assert registry.stock_class(Twice(3)) is Twice


def test_second_handler_of_a_class_must_be_meant() -> None:
    with pytest.raises(ValueError, match=r"Dense has a handler already.*replace=True"):
        register_handler(Square, keras.layers.Dense)
    assert Square not in registered_classes()
    register_handler(keras.layers.Dense, replace=True)(SquareHandler)
    assert type(registry.handler_of(keras.layers.Dense)) is SquareHandler


@pytest.mark.parametrize("thing", [Square(), "Square", np.ndarray, SquareHandler, None])
def test_what_is_no_layer_class(thing) -> None:
    with pytest.raises(TypeError, match="Expected classes of Keras layers or operations"):
        register_handler(thing)


def test_no_class_at_all() -> None:
    with pytest.raises(TypeError, match="Received: 'none'"):
        register_handler()


def test_operation_classes_count() -> None:
    register_handler(numpy_ops.Cross)(SquareHandler)
    assert numpy_ops.Cross in registered_classes()


@pytest.mark.parametrize("thing", [SquareHandler(), Square, "handler", lambda op: None])
def test_what_is_no_handler_class(thing) -> None:
    with pytest.raises(TypeError, match=r"Expected a subclass of keras_sbp\.LayerHandler"):
        register_handler(Square)(thing)
    assert Square not in registered_classes()


def test_incomplete_handler() -> None:
    class Half(LayerHandler):
        def values(self, op, inputs):
            return [{}]

    with pytest.raises(TypeError, match=r"Half is incomplete.*without needs\(\), rebuild\(\)"):
        register_handler(Square)(Half)


@pytest.mark.remedy("Give the class a get_config() that returns all arguments")
def test_layer_that_its_handler_cannot_make_anew_needs_a_config() -> None:
    class Odd(Square):
        def __init__(self, given, **kwargs):
            super().__init__(**kwargs)
            self.held = given

    class Described(Odd):
        def get_config(self):
            return super().get_config() | {"given": self.held}

    register_handler(Odd, Described)(SquareHandler)

    def model_with(odd):
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), odd])

    with pytest.raises(ValueError, match="'odd' (.|\n)*Give the class a get_config"):
        keras_sbp.prune(model_with(Odd(np.ones(1), name="odd")))
    keras_sbp.prune(model_with(Described(1, name="odd")))
